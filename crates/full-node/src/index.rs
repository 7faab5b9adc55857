//! Durable index of finalized receipts: receipt id → where it stands, and what is needed to read its payment's state.
//!
//! The chain itself is the source of truth: every row follows from finalized blocks, so the index can be deleted and is then
//! refilled from the consensus archive. A block's rows and the new height are one transaction, synced to disk before the
//! block is acknowledged. Receipts themselves are not copied here (D11: cores are not served). Proofs of answers are no part of
//! a block: those that this node has seen are kept here for the unbonding period (D14), and are served to nobody.

use crate::epochs::Kept;
use alloy_primitives::{Address, B256, Bytes};
use opg_consensus::Fault;
use opg_primitives::hash::sha256;
use opg_receipt::{PaymentMethod, PaymentRecord, PaymentScheme};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition};
use std::{collections::HashSet, path::Path};

const RECEIPTS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("receipts/v1");
const PAYMENTS: TableDefinition<'_, &[u8; 32], &[u8; 32]> = TableDefinition::new("payments/v1");
const NODES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("nodes/v1");
/// Receipt id → the proof of its answer.
const ARTEFACTS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("artefacts/v1");
/// (timestamp of the block, receipt id) of every artefact, for forgetting the old ones.
const ARTEFACT_TIMES: TableDefinition<'_, (u64, &[u8; 32]), ()> = TableDefinition::new("artefact_times/v1");
/// Epoch → what a light client needs of its hand-over, JSON.
const HANDOVERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("handovers/v1");
/// (epoch, view, seat, kind) → evidence of conflicting votes.
const FAULTS: TableDefinition<'_, (u64, u64, u32, u8), &[u8]> = TableDefinition::new("faults/v1");
/// Invalid proofs that validators voted for, by their SHA-256.
const FAULT_ARTEFACTS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("fault-artefacts/v1");
/// Most of them kept; each has at most 1 MiB.
const MAX_FAULT_ARTEFACTS: u64 = 64;
/// Most faults kept; the oldest go first.
const MAX_FAULTS: u64 = 4_096;
/// Most faults of one seat in one epoch: one is enough to slash it, and nobody's may push out those of others.
const MAX_FAULTS_OF_SEAT: usize = 4;
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta/v1");
const HEIGHT: &str = "height";
const GENESIS: &str = "genesis";

/// The index could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The storage engine failed.
    #[error("receipt index: {0}")]
    Storage(Box<redb::Error>),
    /// The file belongs to another network.
    #[error("receipt index belongs to genesis {got}, expected {expected}")]
    WrongGenesis {
        /// Digest of this network's genesis.
        expected: B256,
        /// Digest in the file.
        got: B256,
    },
    /// A row has another form than this version writes.
    #[error(
        "receipt index: row of table {table} has {got} bytes, expected {expected}; delete the index, it is rebuilt"
    )]
    Row {
        /// Table.
        table: &'static str,
        /// Bytes of a row.
        expected: usize,
        /// Bytes found.
        got: usize,
    },
    /// A block was handed over out of order.
    #[error("receipt index: block {got} after {height}")]
    Gap {
        /// Height of the index.
        height: u64,
        /// Height of the block.
        got: u64,
    },
}

impl<E: Into<redb::Error>> From<E> for IndexError {
    fn from(error: E) -> Self {
        Self::Storage(Box::new(error.into()))
    }
}

/// Where one finalized receipt stands, and what it pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Height of its block.
    pub height: u64,
    /// Position in the block's batch.
    pub index: u32,
    /// Receipts in that batch.
    pub count: u32,
    /// Timestamp of the block, Unix seconds.
    pub timestamp: u64,
    /// `keccak256` of the core: the leaf.
    pub core_hash: B256,
    /// Node that served it.
    pub node_id: B256,
    /// Keyset that signed it.
    pub keyset: B256,
    /// Sequence number of the keyset.
    pub seq: u64,
    /// Model root served.
    pub model_root: B256,
    /// Mode code (receipt.md §4).
    pub mode: u8,
    /// Grade code.
    pub grade: u8,
    /// Payer.
    pub payer: Address,
    /// Payment nonce.
    pub nonce: B256,
    /// Amount signed, wei.
    pub amount: u128,
    /// Charge, wei.
    pub charge: u128,
    /// Payment id (receipt.md §3); a channel's is that of many receipts.
    pub payment_id: B256,
    /// How it was paid.
    pub method: RowMethod,
    /// Charges recorded for the channel that pays, up to and with this block, wei; 0 without a channel.
    pub recorded: u128,
}

/// How a receipt was paid, in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowMethod {
    /// `exact` by ERC-3009.
    Eip3009 = 0,
    /// `exact` by Permit2.
    ExactPermit2 = 1,
    /// `upto` by Permit2.
    UptoPermit2 = 2,
    /// A channel.
    Voucher = 3,
}

impl RowMethod {
    /// That of a receipt's payment.
    #[must_use]
    pub const fn of(payment: &PaymentRecord) -> Self {
        match (payment.method, payment.scheme) {
            (PaymentMethod::Eip3009, _) => Self::Eip3009,
            (PaymentMethod::Permit2, PaymentScheme::Upto) => Self::UptoPermit2,
            (PaymentMethod::Permit2, _) => Self::ExactPermit2,
            (PaymentMethod::Voucher, _) => Self::Voucher,
        }
    }

    /// As the ledger knows it; `None` for a channel.
    #[must_use]
    pub const fn single(self) -> Option<opg_contracts::PaymentMethod> {
        match self {
            Self::Eip3009 => Some(opg_contracts::PaymentMethod::Erc3009),
            Self::ExactPermit2 => Some(opg_contracts::PaymentMethod::ExactPermit2),
            Self::UptoPermit2 => Some(opg_contracts::PaymentMethod::UptoPermit2),
            Self::Voucher => None,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Eip3009),
            1 => Some(Self::ExactPermit2),
            2 => Some(Self::UptoPermit2),
            3 => Some(Self::Voucher),
            _ => None,
        }
    }
}

const ROW: usize = 8 + 4 + 4 + 8 + 32 * 3 + 8 + 32 + 2 + 20 + 32 + 16 + 16 + 32 + 1 + 16;

impl Row {
    fn encode(&self) -> [u8; ROW] {
        let mut out = [0; ROW];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.height.to_be_bytes());
        put(&self.index.to_be_bytes());
        put(&self.count.to_be_bytes());
        put(&self.timestamp.to_be_bytes());
        put(self.core_hash.as_slice());
        put(self.node_id.as_slice());
        put(self.keyset.as_slice());
        put(&self.seq.to_be_bytes());
        put(self.model_root.as_slice());
        put(&[self.mode, self.grade]);
        put(self.payer.as_slice());
        put(self.nonce.as_slice());
        put(&self.amount.to_be_bytes());
        put(&self.charge.to_be_bytes());
        put(self.payment_id.as_slice());
        put(&[self.method as u8]);
        put(&self.recorded.to_be_bytes());
        out
    }

    fn decode(row: &[u8]) -> Result<Self, IndexError> {
        let row: &[u8; ROW] = row.try_into().map_err(|_| IndexError::Row {
            table: "receipts",
            expected: ROW,
            got: row.len(),
        })?;
        let mut rest = Reader(row);
        let method = RowMethod::from_code(row[ROW - 17]).ok_or(IndexError::Row {
            table: "receipts",
            expected: ROW,
            got: row.len(),
        })?;
        Ok(Self {
            height: u64::from_be_bytes(rest.take()),
            index: u32::from_be_bytes(rest.take()),
            count: u32::from_be_bytes(rest.take()),
            timestamp: u64::from_be_bytes(rest.take()),
            core_hash: B256::from(rest.take::<32>()),
            node_id: B256::from(rest.take::<32>()),
            keyset: B256::from(rest.take::<32>()),
            seq: u64::from_be_bytes(rest.take()),
            model_root: B256::from(rest.take::<32>()),
            mode: rest.take::<1>()[0],
            grade: rest.take::<1>()[0],
            payer: Address::from(rest.take::<20>()),
            nonce: B256::from(rest.take::<32>()),
            amount: u128::from_be_bytes(rest.take()),
            charge: u128::from_be_bytes(rest.take()),
            payment_id: B256::from(rest.take::<32>()),
            method,
            recorded: {
                let [_method] = rest.take();
                u128::from_be_bytes(rest.take())
            },
        })
    }
}

/// Reads fixed-size fields; the length was checked before.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        if let Some((head, tail)) = self.0.split_at_checked(N) {
            out.copy_from_slice(head);
            self.0 = tail;
        }
        out
    }
}

/// Evidence of a validator's fault that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptFault {
    /// Epoch of the votes.
    pub(crate) epoch: u64,
    /// View of the votes.
    pub(crate) view: u64,
    /// Position of the offender in that epoch's set sorted by identity.
    pub(crate) seat: u32,
    /// Which votes ([`opg_consensus::FaultKind::code`]).
    pub(crate) kind: u8,
    /// The votes, and what they were for.
    pub(crate) evidence: Bytes,
}

/// Totals of one node's finalized receipts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Receipts.
    pub receipts: u64,
    /// Sum of signed amounts, wei (saturating).
    pub amount: u128,
    /// Sum of charges, wei (saturating).
    pub charge: u128,
    /// Height of the newest one.
    pub last_height: u64,
}

const STATS: usize = 8 + 16 + 16 + 8;

impl NodeStats {
    fn encode(&self) -> [u8; STATS] {
        let mut out = [0; STATS];
        out[..8].copy_from_slice(&self.receipts.to_be_bytes());
        out[8..24].copy_from_slice(&self.amount.to_be_bytes());
        out[24..40].copy_from_slice(&self.charge.to_be_bytes());
        out[40..].copy_from_slice(&self.last_height.to_be_bytes());
        out
    }

    fn decode(row: &[u8]) -> Result<Self, IndexError> {
        let row: &[u8; STATS] = row.try_into().map_err(|_| IndexError::Row {
            table: "nodes",
            expected: STATS,
            got: row.len(),
        })?;
        let mut rest = Reader(row);
        Ok(Self {
            receipts: u64::from_be_bytes(rest.take()),
            amount: u128::from_be_bytes(rest.take()),
            charge: u128::from_be_bytes(rest.take()),
            last_height: u64::from_be_bytes(rest.take()),
        })
    }
}

/// The index. All methods block on the disk; call them from blocking threads.
#[derive(Debug)]
pub struct Index {
    db: Database,
}

impl Index {
    /// Opens or creates the file at `path` for the network of digest `genesis`.
    ///
    /// # Errors
    /// If the file can not be used, or is another network's.
    pub fn open(path: &Path, genesis: B256) -> Result<Self, IndexError> {
        let db = Database::create(path)?;
        let write = db.begin_write()?;
        {
            write.open_table(RECEIPTS)?;
            write.open_table(PAYMENTS)?;
            write.open_table(NODES)?;
            write.open_table(ARTEFACTS)?;
            write.open_table(ARTEFACT_TIMES)?;
            write.open_table(HANDOVERS)?;
            write.open_table(FAULTS)?;
            write.open_table(FAULT_ARTEFACTS)?;
            let mut meta = write.open_table(META)?;
            let known = meta.get(GENESIS)?.map(|v| v.value().to_vec());
            match known {
                None => {
                    meta.insert(GENESIS, genesis.as_slice())?;
                    meta.insert(HEIGHT, 0u64.to_be_bytes().as_slice())?;
                }
                Some(got) if got == genesis.as_slice() => {}
                Some(got) => {
                    let got = B256::try_from(got.as_slice()).unwrap_or_default();
                    return Err(IndexError::WrongGenesis { expected: genesis, got });
                }
            }
        }
        write.commit()?;
        Ok(Self { db })
    }

    /// Height of the newest block whose rows are on disk.
    ///
    /// # Errors
    /// Disk.
    pub fn height(&self) -> Result<u64, IndexError> {
        let read = self.db.begin_read()?;
        read_height(&read.open_table(META)?)
    }

    /// Adds the rows of the block at `height`, which must follow the newest one. A block that is there already is skipped, so
    /// that redelivery is harmless. Durable on return.
    ///
    /// # Errors
    /// Disk, or a gap.
    pub fn append(&self, height: u64, rows: &[(B256, Row)]) -> Result<(), IndexError> {
        let write = self.db.begin_write()?;
        {
            let mut meta = write.open_table(META)?;
            let known = read_height(&meta)?;
            if height <= known {
                return Ok(());
            }
            if height != known + 1 {
                return Err(IndexError::Gap {
                    height: known,
                    got: height,
                });
            }
            meta.insert(HEIGHT, height.to_be_bytes().as_slice())?;
            if !rows.is_empty() {
                let (mut receipts, mut payments) = (write.open_table(RECEIPTS)?, write.open_table(PAYMENTS)?);
                let mut nodes = write.open_table(NODES)?;
                for (id, row) in rows {
                    receipts.insert(&id.0, row.encode().as_slice())?;
                    payments.insert(&row.payment_id.0, &id.0)?;
                    let mut stats = nodes
                        .get(&row.node_id.0)?
                        .map(|v| NodeStats::decode(v.value()))
                        .transpose()?
                        .unwrap_or_default();
                    stats.receipts += 1;
                    stats.amount = stats.amount.saturating_add(row.amount);
                    stats.charge = stats.charge.saturating_add(row.charge);
                    stats.last_height = height;
                    nodes.insert(&row.node_id.0, stats.encode().as_slice())?;
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Keeps the proofs of receipts of a block at `timestamp` (Unix seconds), and forgets those of blocks before `oldest`.
    ///
    /// # Errors
    /// Disk.
    pub fn keep_artefacts(&self, timestamp: u64, artefacts: &[(B256, Bytes)], oldest: u64) -> Result<(), IndexError> {
        let write = self.db.begin_write()?;
        {
            let (mut kept, mut times) = (write.open_table(ARTEFACTS)?, write.open_table(ARTEFACT_TIMES)?);
            for (id, artefact) in artefacts {
                kept.insert(&id.0, artefact.as_ref())?;
                times.insert((timestamp, &id.0), ())?;
            }
            let old: Vec<(u64, [u8; 32])> = times
                .range(..(oldest, &[0; 32]))?
                .map(|entry| entry.map(|(key, _)| (key.value().0, *key.value().1)))
                .collect::<Result<_, _>>()?;
            for (at, id) in old {
                times.remove((at, &id))?;
                kept.remove(&id)?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Keeps what a light client needs of the hand-over to an epoch. It can be made only while the state of that block is there.
    ///
    /// # Errors
    /// Disk.
    pub(crate) fn keep_handover(&self, epoch: u64, kept: &Kept) -> Result<(), IndexError> {
        let write = self.db.begin_write()?;
        // no map keys but struct fields: cannot fail
        let bytes = serde_json::to_vec(kept).unwrap_or_default();
        write.open_table(HANDOVERS)?.insert(epoch, bytes.as_slice())?;
        write.commit()?;
        Ok(())
    }

    /// What is kept of the hand-over to an epoch.
    ///
    /// # Errors
    /// Disk.
    pub(crate) fn handover(&self, epoch: u64) -> Result<Option<Kept>, IndexError> {
        let read = self.db.begin_read()?;
        let found = read.open_table(HANDOVERS)?.get(epoch)?;
        Ok(found.and_then(|bytes| serde_json::from_slice(bytes.value()).ok()))
    }

    /// Keeps evidence of a fault, with the invalid proof if it is a vote for one.
    ///
    /// # Errors
    /// Disk.
    pub(crate) fn keep_fault(&self, fault: &Fault, evidence: &[u8], artefact: Option<&[u8]>) -> Result<(), IndexError> {
        let write = self.db.begin_write()?;
        {
            let mut faults = write.open_table(FAULTS)?;
            let key = (fault.epoch, fault.view, fault.seat, fault.kind.code());
            let mut of_seat = 0;
            for entry in faults.range((fault.epoch, 0, 0, 0)..=(fault.epoch, u64::MAX, u32::MAX, u8::MAX))? {
                of_seat += usize::from(entry?.0.value().2 == fault.seat);
            }
            if of_seat < MAX_FAULTS_OF_SEAT {
                faults.insert(key, evidence)?;
                if faults.len()? > MAX_FAULTS {
                    faults.pop_first()?;
                }
                if let Some(artefact) = artefact {
                    let mut artefacts = write.open_table(FAULT_ARTEFACTS)?;
                    if artefacts.len()? >= MAX_FAULT_ARTEFACTS {
                        artefacts.pop_first()?;
                    }
                    artefacts.insert(&sha256(artefact).0, artefact)?;
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Evidence of faults, one of each seat and epoch, newest epoch first, at most `most`.
    ///
    /// # Errors
    /// Disk.
    pub(crate) fn faults(&self, most: usize) -> Result<Vec<KeptFault>, IndexError> {
        let read = self.db.begin_read()?;
        let table = read.open_table(FAULTS)?;
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for entry in table.iter()?.rev() {
            let (key, evidence) = entry?;
            let (epoch, view, seat, kind) = key.value();
            if !seen.insert((epoch, seat)) {
                continue;
            }
            if seen.len() > most {
                break;
            }
            found.push(KeptFault {
                epoch,
                view,
                seat,
                kind,
                evidence: Bytes::copy_from_slice(evidence.value()),
            });
        }
        Ok(found)
    }

    /// An invalid proof that a validator voted for, by its SHA-256.
    ///
    /// # Errors
    /// Disk.
    pub(crate) fn fault_artefact(&self, hash: B256) -> Result<Option<Bytes>, IndexError> {
        let read = self.db.begin_read()?;
        let found = read.open_table(FAULT_ARTEFACTS)?.get(&hash.0)?;
        Ok(found.map(|artefact| Bytes::copy_from_slice(artefact.value())))
    }

    /// The proof of a receipt's answer, while it is kept.
    ///
    /// # Errors
    /// Disk.
    pub fn artefact(&self, id: B256) -> Result<Option<Bytes>, IndexError> {
        let read = self.db.begin_read()?;
        let found = read.open_table(ARTEFACTS)?.get(&id.0)?;
        Ok(found.map(|artefact| Bytes::copy_from_slice(artefact.value())))
    }

    /// The row of a receipt.
    ///
    /// # Errors
    /// Disk.
    pub fn receipt(&self, id: B256) -> Result<Option<Row>, IndexError> {
        let read = self.db.begin_read()?;
        read.open_table(RECEIPTS)?
            .get(&id.0)?
            .map(|v| Row::decode(v.value()))
            .transpose()
    }

    /// The receipt that a payment paid.
    ///
    /// # Errors
    /// Disk.
    pub fn by_payment(&self, payment_id: B256) -> Result<Option<B256>, IndexError> {
        let read = self.db.begin_read()?;
        Ok(read
            .open_table(PAYMENTS)?
            .get(&payment_id.0)?
            .map(|v| B256::from(*v.value())))
    }

    /// Totals of a node; zero if it has no finalized receipt.
    ///
    /// # Errors
    /// Disk.
    pub fn node(&self, node_id: B256) -> Result<NodeStats, IndexError> {
        let read = self.db.begin_read()?;
        Ok(read
            .open_table(NODES)?
            .get(&node_id.0)?
            .map(|v| NodeStats::decode(v.value()))
            .transpose()?
            .unwrap_or_default())
    }

    /// Number of finalized receipts.
    ///
    /// # Errors
    /// Disk.
    pub fn receipts(&self) -> Result<u64, IndexError> {
        Ok(self.db.begin_read()?.open_table(RECEIPTS)?.len()?)
    }
}

fn read_height(meta: &impl redb::ReadableTable<&'static str, &'static [u8]>) -> Result<u64, IndexError> {
    let Some(value) = meta.get(HEIGHT)? else { return Ok(0) };
    let bytes = value.value();
    let height = bytes.try_into().map_err(|_| IndexError::Row {
        table: "meta",
        expected: 8,
        got: bytes.len(),
    })?;
    Ok(u64::from_be_bytes(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(height: u64, seed: u8) -> (B256, Row) {
        let b = B256::repeat_byte;
        let row = Row {
            height,
            index: 3,
            count: 4,
            timestamp: 77,
            core_hash: b(seed),
            node_id: b(0xee),
            keyset: b(2),
            seq: u64::from(seed),
            model_root: b(3),
            mode: 1,
            grade: 2,
            payer: Address::repeat_byte(4),
            nonce: b(seed ^ 0x80),
            amount: 10,
            charge: 7,
            payment_id: b(seed ^ 0x40),
            method: RowMethod::Voucher,
            recorded: 99,
        };
        (b(seed ^ 0xff), row)
    }

    #[test]
    fn rows_survive_and_redelivery_is_harmless() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        let genesis = B256::repeat_byte(9);
        let (first, second) = (row(1, 1), row(3, 2));
        {
            let index = Index::open(&path, genesis).unwrap();
            assert_eq!(index.height().unwrap(), 0);
            index.append(1, &[first]).unwrap();
            index.append(1, &[first]).unwrap();
            index.append(2, &[]).unwrap();
            assert!(matches!(
                index.append(4, &[]),
                Err(IndexError::Gap { height: 2, got: 4 })
            ));
            index.append(3, &[second]).unwrap();
        }
        let index = Index::open(&path, genesis).unwrap();
        assert_eq!((index.height().unwrap(), index.receipts().unwrap()), (3, 2));
        assert_eq!(index.receipt(first.0).unwrap(), Some(first.1));
        assert_eq!(index.receipt(B256::ZERO).unwrap(), None);
        assert_eq!(index.by_payment(second.1.payment_id).unwrap(), Some(second.0));
        let stats = NodeStats {
            receipts: 2,
            amount: 20,
            charge: 14,
            last_height: 3,
        };
        assert_eq!(index.node(B256::repeat_byte(0xee)).unwrap(), stats);
        assert_eq!(index.node(B256::ZERO).unwrap(), NodeStats::default());
    }

    #[test]
    fn proofs_are_kept_for_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("index.redb"), B256::ZERO).unwrap();
        let (a, b) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        index.keep_artefacts(100, &[(a, bytes("first"))], 0).unwrap();
        index.keep_artefacts(200, &[(b, bytes("second"))], 100).unwrap();
        assert_eq!(index.artefact(a).unwrap(), Some(bytes("first")));
        index.keep_artefacts(201, &[], 101).unwrap();
        assert_eq!(index.artefact(a).unwrap(), None);
        assert_eq!(index.artefact(b).unwrap(), Some(bytes("second")));
    }

    #[test]
    fn a_rebuilt_index_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = [vec![row(1, 1)], vec![], vec![row(3, 2), row(3, 5)]];
        let build = |name: &str| {
            let index = Index::open(&dir.path().join(name), B256::ZERO).unwrap();
            for (i, rows) in blocks.iter().enumerate() {
                index.append(i as u64 + 1, rows).unwrap();
            }
            index
        };
        let (a, b) = (build("a"), build("b"));
        for (id, _) in blocks.iter().flatten() {
            assert_eq!(a.receipt(*id).unwrap(), b.receipt(*id).unwrap());
        }
        assert_eq!(
            a.node(B256::repeat_byte(0xee)).unwrap(),
            b.node(B256::repeat_byte(0xee)).unwrap()
        );
    }

    #[test]
    fn another_network_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        drop(Index::open(&path, B256::repeat_byte(1)).unwrap());
        assert!(matches!(
            Index::open(&path, B256::repeat_byte(2)),
            Err(IndexError::WrongGenesis { .. })
        ));
    }
}
