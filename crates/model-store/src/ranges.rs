//! Ranges of a file that are verified while they arrive.
//!
//! BLAKE3 hashes a file as a tree. Whoever knows the root can check any part of the file with the hashes on the way to it: a
//! *chunk group* of [`GROUP`] bytes is the smallest part that is checked alone. The hashes of a file, two for each inner node
//! in post-order, are its *outboard*: 64 bytes for each 16 KiB, kept beside the file, made once.
//!
//! A range on the wire is what the crate `bao-tree` makes of it: the tree in pre-order, each inner node its two hashes, each
//! leaf its bytes, without a length before it; iroh has the same. Sizes come from the manifest, never from the sender, so
//! that the receiver knows the length of an answer before it reads the first byte.
//!
//! ```text
//! > Range: bao-blake3=32768-98303
//! < 206, Content-Type: application/vnd.opg.bao, Content-Range: bao-blake3 32768-98303/1000000, Content-Length: 65984
//! ```

use crate::stream::Pieces;
use bao_tree::{
    BaoTree, BlockSize, ChunkNum, ChunkRanges,
    blake3::{
        Hash,
        hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root},
    },
    io::{
        BaoContentItem, DecodeError,
        outboard::PostOrderOutboard,
        sync::{DecodeResponseIter, Outboard as _, OutboardMut as _, outboard_post_order},
    },
    iter::{BaoChunk, ResponseIter},
};
use std::{
    fmt,
    io::{self, Read, Write},
};

pub use bao_tree::io::sync::{ReadAt, WriteAt};

/// Bytes that are checked together. A liar is found out after at most so many. Smaller groups cost more hashes (0.4 % of a
/// file with this size); larger ones are hashed no faster: 16 chunks fill the widest vector unit.
pub const GROUP: u64 = 16 << 10;
const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
/// Bytes of two hashes, an inner node on the wire.
const PAIR: usize = 64;
/// BLAKE3's chunk.
const CHUNK: u64 = 1 << 10;
/// Most bytes of a file in one answer.
pub const RANGE_LIMIT: u64 = 64 << 20;
/// The unit of verified ranges in `Range` and `Content-Range`. Servers that do not know it ignore the header (RFC 9110 §14.2).
pub const UNIT: &str = "bao-blake3";
/// Type of an answer with verified ranges.
pub const MEDIA_TYPE: &str = "application/vnd.opg.bao";
/// Header by which a node says that it gives verified ranges of a model's file; the value is [`UNIT`].
pub const OFFER_HEADER: &str = "x-opg-verified-ranges";

/// A part of a file, of whole chunk groups: both ends are multiples of [`GROUP`], but the end may be that of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    start: u64,
    end: u64,
}

/// Why a range cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpanError {
    /// Not `bao-blake3=FIRST-LAST`.
    #[error("Range: expected {UNIT}=FIRST-LAST with two numbers")]
    Syntax,
    /// Nothing of the file is in it, or its ends are the wrong way round.
    #[error("Range: {first}-{last} is no part of a file of {size} bytes")]
    Outside {
        /// First byte asked for.
        first: u64,
        /// Last byte asked for.
        last: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// More than one answer may have.
    #[error("Range: {got} bytes, an answer has at most {RANGE_LIMIT}")]
    Long {
        /// Bytes asked for, after rounding to chunk groups.
        got: u64,
    },
}

impl Span {
    /// The groups of a file of `size` bytes that have bytes of `start..end`; `None` if there are none.
    #[must_use]
    pub fn covering(start: u64, end: u64, size: u64) -> Option<Self> {
        let end = end.min(size);
        if start >= end {
            return None;
        }
        Some(Self {
            start: start - start % GROUP,
            end: end.checked_next_multiple_of(GROUP).map_or(size, |end| end.min(size)),
        })
    }

    /// What a `Range` header asks for, rounded to chunk groups; `None` for another unit.
    ///
    /// # Errors
    /// [`SpanError`].
    pub fn of_header(value: &str, size: u64) -> Option<Result<Self, SpanError>> {
        let (unit, range) = value.trim().split_once('=')?;
        if !unit.trim_end().eq_ignore_ascii_case(UNIT) {
            return None;
        }
        Some(Self::of_range(range, size))
    }

    fn of_range(range: &str, size: u64) -> Result<Self, SpanError> {
        let number = |text: &str| {
            let text = text.trim();
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
        };
        let (first, last) = range.split_once('-').ok_or(SpanError::Syntax)?;
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(SpanError::Syntax);
        };
        let outside = SpanError::Outside { first, last, size };
        if first > last {
            return Err(outside);
        }
        let span = Self::covering(first, last.saturating_add(1), size).ok_or(outside)?;
        if span.length() > RANGE_LIMIT {
            return Err(SpanError::Long { got: span.length() });
        }
        Ok(span)
    }

    /// First byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The byte behind the last one.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Bytes of the file in it; never 0.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Value of `Range`.
    #[must_use]
    pub fn range(self) -> String {
        format!("{UNIT}={}-{}", self.start, self.end.saturating_sub(1))
    }

    /// Value of `Content-Range`.
    #[must_use]
    pub fn content_range(self, size: u64) -> String {
        format!("{UNIT} {}-{}/{size}", self.start, self.end.saturating_sub(1))
    }

    /// The first `length` bytes, rounded up to groups, and what follows them.
    #[must_use]
    pub fn split(self, length: u64) -> (Self, Option<Self>) {
        let length = length.max(1).checked_next_multiple_of(GROUP).unwrap_or(u64::MAX);
        let middle = self.start.saturating_add(length);
        if middle >= self.end {
            return (self, None);
        }
        let (first, rest) = (Self { end: middle, ..self }, Self { start: middle, ..self });
        (first, Some(rest))
    }

    /// What is left of it when everything before `until` is here.
    #[must_use]
    pub fn after(self, until: u64) -> Option<Self> {
        let start = until.max(self.start);
        (start < self.end).then_some(Self { start, ..self })
    }

    fn chunks(self, size: u64) -> ChunkRanges {
        let start = ChunkNum(self.start / CHUNK);
        if self.end >= size {
            ChunkRanges::from(start..)
        } else {
            ChunkRanges::from(start..ChunkNum(self.end / CHUNK))
        }
    }

    /// Bytes of an answer: those of the file, and the hashes on the way to them.
    #[must_use]
    pub fn encoded_length(self, size: u64) -> u64 {
        let parents = ResponseIter::new(tree(size), self.chunks(size))
            .filter(|chunk| matches!(chunk, BaoChunk::Parent { .. }))
            .count() as u64;
        self.length().saturating_add(64 * parents)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {} to {}", self.start, self.end)
    }
}

fn tree(size: u64) -> BaoTree {
    BaoTree::new(size, BLOCK)
}

/// Bytes of the outboard of a file.
#[must_use]
pub fn outboard_length(size: u64) -> u64 {
    tree(size).outboard_size()
}

/// Reads a file of `size` bytes, writes its outboard, and returns its BLAKE3. Blocks.
///
/// # Errors
/// Those of reading and writing; `UnexpectedEof` if the file is shorter.
pub fn make_outboard(data: impl Read, size: u64, outboard: impl Write) -> io::Result<[u8; 32]> {
    Ok(*outboard_post_order(data, tree(size), outboard)?.as_bytes())
}

/// Whether an outboard is that of the file with this BLAKE3 and size, whatever has become of the file. Blocks.
///
/// # Errors
/// Those of reading; an outboard that is too short is none.
pub fn is_sound(blake3: [u8; 32], size: u64, outboard: impl ReadAt) -> io::Result<bool> {
    let (root, tree) = (Hash::from(blake3), tree(size));
    let hashes = PostOrderOutboard {
        root,
        tree,
        data: outboard,
    };
    let mut expected = vec![root];
    for chunk in ResponseIter::new(tree, ChunkRanges::all()) {
        let known = expected.pop();
        if let BaoChunk::Parent { node, is_root, .. } = chunk {
            let pair = match hashes.load(node) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
                pair => pair?,
            };
            match pair {
                Some((left, right)) if known == Some(parent(&left, &right, is_root)) => expected.extend([right, left]),
                _ => return Ok(false),
            }
        }
    }
    Ok(true)
}

fn parent(left: &Hash, right: &Hash, root: bool) -> Hash {
    if root {
        merge_subtrees_root(left.as_bytes(), right.as_bytes(), Mode::Hash)
    } else {
        Hash::from(merge_subtrees_non_root(left.as_bytes(), right.as_bytes(), Mode::Hash))
    }
}

fn leaf(start: ChunkNum, bytes: &[u8], root: bool) -> Hash {
    if root {
        return bao_tree::blake3::hash(bytes);
    }
    let mut hasher = bao_tree::blake3::Hasher::new();
    hasher.set_input_offset(start.to_bytes());
    hasher.update(bytes);
    Hash::from(hasher.finalize_non_root())
}

/// A range on its way out, in pieces of any size. Everything is hashed before it is given out: what the disk has changed ends
/// the answer, so that who sends it does not look like a liar.
pub struct Encoder<D, O> {
    chunks: std::iter::Peekable<ResponseIter>,
    expected: Vec<Hash>,
    outboard: PostOrderOutboard<O>,
    data: D,
    /// Whether inner nodes are given out.
    hashes: bool,
    damaged: bool,
}

impl<D, O> fmt::Debug for Encoder<D, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("damaged", &self.damaged)
            .finish_non_exhaustive()
    }
}

impl<D: Read, O: ReadAt> Encoder<D, O> {
    /// The range `span` of a file with this BLAKE3 and size. `data` reads the file from the span's first byte on.
    pub fn new(blake3: [u8; 32], size: u64, span: Span, data: D, outboard: O) -> Self {
        let (root, tree) = (Hash::from(blake3), tree(size));
        Self {
            chunks: ResponseIter::new(tree, span.chunks(size)).peekable(),
            expected: vec![root],
            outboard: PostOrderOutboard {
                root,
                tree,
                data: outboard,
            },
            data,
            hashes: true,
            damaged: false,
        }
    }

    /// Writes the next bytes of the answer to the front of `piece`, and says how many there are; 0 at its end. Nodes of the tree
    /// are not divided: up to [`GROUP`] bytes of `piece` may stay free. Blocks.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` if file or outboard do not have their hashes; the answer must be broken off then.
    /// `InvalidInput` if `piece` is shorter than [`GROUP`].
    pub fn fill(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the stored bytes do not have their hash");
        if self.damaged {
            return Err(damaged());
        }
        if (piece.len() as u64) < GROUP {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut filled = 0;
        while let Some(chunk) = self.chunks.peek() {
            let size = match chunk {
                BaoChunk::Parent { .. } if self.hashes => PAIR,
                BaoChunk::Parent { .. } => 0,
                BaoChunk::Leaf { size, .. } => *size,
            };
            let Some(room) = piece.get_mut(filled..).and_then(|free| free.get_mut(..size)) else {
                break;
            };
            let (hash, expected) = match *chunk {
                BaoChunk::Parent {
                    node,
                    is_root,
                    left,
                    right,
                    ..
                } => {
                    let pair = self.outboard.load(node)?.ok_or_else(damaged)?;
                    let expected = self.expected.pop();
                    if right {
                        self.expected.push(pair.1);
                    }
                    if left {
                        self.expected.push(pair.0);
                    }
                    if let Some((first, second)) = room.split_at_mut_checked(PAIR / 2) {
                        first.copy_from_slice(pair.0.as_bytes());
                        second.copy_from_slice(pair.1.as_bytes());
                    }
                    (parent(&pair.0, &pair.1, is_root), expected)
                }
                BaoChunk::Leaf {
                    is_root, start_chunk, ..
                } => {
                    self.data.read_exact(room)?;
                    (leaf(start_chunk, room, is_root), self.expected.pop())
                }
            };
            if expected != Some(hash) {
                self.damaged = true;
                return Err(damaged());
            }
            self.chunks.next();
            filled += size;
        }
        Ok(filled)
    }
}

/// The bytes of a part of a file as they are, each of them verified before it is given out. What [`Encoder`] is to clients that
/// verify, this is to those that cannot.
#[derive(Debug)]
pub struct Checked<D, O> {
    groups: Encoder<D, O>,
    /// Bytes of the first group before the part.
    skip: usize,
    left: u64,
}

impl<D: Read, O: ReadAt> Checked<D, O> {
    /// The bytes `start..end` of a file with this BLAKE3 and size; `span` is [`Span::covering`] of them, and `data` reads the file
    /// from the span's first byte on.
    pub fn new(blake3: [u8; 32], size: u64, (start, end): (u64, u64), span: Span, data: D, outboard: O) -> Self {
        let mut groups = Encoder::new(blake3, size, span, data, outboard);
        groups.hashes = false;
        Self {
            groups,
            skip: usize::try_from(start.saturating_sub(span.start)).unwrap_or(usize::MAX),
            left: end.saturating_sub(start),
        }
    }
}

impl<D, O> Pieces for Checked<D, O>
where
    D: Read + Send + 'static,
    O: ReadAt + Send + 'static,
{
    fn fill(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let filled = self.groups.fill(piece)?;
        let skip = std::mem::take(&mut self.skip).min(filled);
        piece.copy_within(skip..filled, 0);
        let wanted = (filled - skip).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left = self.left.saturating_sub(wanted as u64);
        Ok(wanted)
    }
}

impl<D, O> Pieces for Encoder<D, O>
where
    D: Read + Send + 'static,
    O: ReadAt + Send + 'static,
{
    fn fill(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        Self::fill(self, piece)
    }
}

/// Why an answer was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// A hash is wrong: nothing but the sender (or what stands between) can be the reason.
    #[error("sent bytes that do not have their hash, at most {GROUP} bytes behind byte {at}")]
    Lied {
        /// Everything of the range before this byte was good.
        at: u64,
    },
    /// It ended too early.
    #[error("the transfer broke off at byte {at}")]
    Short {
        /// Everything of the range before this byte was good.
        at: u64,
    },
    /// The disk that it is written to.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads an answer, and writes what has its hash: bytes into `data` at their places in the file, hashes into `outboard`.
/// Returns as soon as something is wrong. `verified` hears of every byte before which all of the range is here. Blocks.
///
/// # Errors
/// [`RangeError`]; what was written before is good and stays.
pub fn decode(
    blake3: [u8; 32],
    size: u64,
    span: Span,
    encoded: impl Read,
    data: &mut impl WriteAt,
    outboard: &mut impl WriteAt,
    mut verified: impl FnMut(u64),
) -> Result<(), RangeError> {
    let (root, tree) = (Hash::from(blake3), tree(size));
    let mut hashes = PostOrderOutboard {
        root,
        tree,
        data: outboard,
    };
    let ranges = span.chunks(size);
    let mut at = span.start;
    for item in DecodeResponseIter::new(root, tree, encoded, &ranges) {
        match item {
            Ok(BaoContentItem::Parent(parent)) => hashes.save(parent.node, &parent.pair)?,
            Ok(BaoContentItem::Leaf(leaf)) => {
                data.write_all_at(leaf.offset, &leaf.data)?;
                at = leaf.offset.saturating_add(leaf.data.len() as u64);
                verified(at);
            }
            Err(DecodeError::ParentHashMismatch(_) | DecodeError::LeafHashMismatch(_)) => {
                return Err(RangeError::Lied { at });
            }
            Err(DecodeError::ParentNotFound(_) | DecodeError::LeafNotFound(_) | DecodeError::Io(_)) => {
                return Err(RangeError::Short { at });
            }
        }
    }
    if at < span.end {
        return Err(RangeError::Short { at });
    }
    Ok(())
}

/// The parts of a file that are not here, given what is on disk of it and of its outboard: everything that is not proven from
/// the root down counts as missing. Reads only bytes whose hashes are here. Blocks.
///
/// # Errors
/// Those of reading; short files are none.
pub fn missing(blake3: [u8; 32], size: u64, data: impl ReadAt, outboard: impl ReadAt) -> io::Result<Vec<Span>> {
    let (root, tree) = (Hash::from(blake3), tree(size));
    let hashes = PostOrderOutboard {
        root,
        tree,
        data: outboard,
    };
    let mut expected = vec![Some(root)];
    let mut missing: Vec<Span> = Vec::new();
    let mut buffer = vec![0; GROUP as usize];
    for chunk in ResponseIter::new(tree, ChunkRanges::all()) {
        let known = expected.pop().flatten();
        match chunk {
            BaoChunk::Parent { node, is_root, .. } => {
                let pair = match known {
                    Some(hash) => hashes.load(node)?.filter(|(l, r)| parent(l, r, is_root) == hash),
                    None => None,
                };
                expected.push(pair.map(|(_, right)| right));
                expected.push(pair.map(|(left, _)| left));
            }
            BaoChunk::Leaf {
                size: length,
                is_root,
                start_chunk,
                ..
            } => {
                let start = start_chunk.to_bytes();
                let bytes = buffer.get_mut(..length).unwrap_or_default();
                let here = match known {
                    Some(hash) => match data.read_exact_at(start, bytes) {
                        Ok(()) => leaf(start_chunk, bytes, is_root) == hash,
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
                        Err(error) => return Err(error),
                    },
                    None => false,
                };
                let end = start.saturating_add(length as u64);
                match missing.last_mut() {
                    _ if here || length == 0 => {}
                    Some(last) if last.end == start => last.end = end,
                    _ => missing.push(Span { start, end }),
                }
            }
        }
    }
    Ok(missing)
}
