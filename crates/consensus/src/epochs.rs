//! The validator set of each epoch: asked for, remembered on disk, and given to the engine as signature schemes.

use crate::{
    application::{ChainApplication, EpochSet},
    config::Config,
    error::ConsensusError,
    keys::Participant,
    scheme::{Scheme, scheme},
};
use commonware_consensus::types::Epoch;
use commonware_cryptography::certificate::{Provider, Scoped};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

/// Epochs whose schemes and peers are kept: blocks and certificates of them may still be asked for.
pub(crate) const KEPT_EPOCHS: u64 = 8;

/// Largest set file. A line has at most 300 characters.
const MAX_SET_BYTES: u64 = 1 << 20;

/// Schemes by epoch, shared with marshal.
#[derive(Clone, Default)]
pub(crate) struct Schemes(Arc<RwLock<BTreeMap<u64, Arc<Scheme>>>>);

impl Schemes {
    fn insert(&self, epoch: u64, scheme: Scheme) {
        let mut schemes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        schemes.insert(epoch, Arc::new(scheme));
        while schemes.len() as u64 > KEPT_EPOCHS {
            schemes.pop_first();
        }
    }

    fn get(&self, epoch: u64) -> Option<Arc<Scheme>> {
        let schemes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        schemes.get(&epoch).cloned()
    }
}

impl Provider for Schemes {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, epoch: Epoch) -> Option<Scoped<Scheme>> {
        self.get(epoch.get()).map(Scoped::scheme)
    }
}

/// Sets by epoch. Epoch 0 is the configuration's, a later one is what the application said.
pub(crate) struct Epochs {
    config: Arc<Config>,
    application: Arc<dyn ChainApplication>,
    pub(crate) schemes: Schemes,
    sets: BTreeMap<u64, EpochSet>,
}

impl Epochs {
    /// Reads what is on disk.
    pub(crate) fn open(config: Arc<Config>, application: Arc<dyn ChainApplication>) -> Result<Self, ConsensusError> {
        let mut epochs = Self {
            config,
            application,
            schemes: Schemes::default(),
            sets: BTreeMap::new(),
        };
        for (epoch, set) in epochs.load()? {
            epochs.add(epoch, set)?;
        }
        Ok(epochs)
    }

    fn folder(&self) -> PathBuf {
        self.config.dir.join("sets")
    }

    /// The newest sets on disk, and that of epoch 0 if it is recent.
    fn load(&self) -> Result<BTreeMap<u64, EpochSet>, ConsensusError> {
        let mut sets = BTreeMap::new();
        let genesis = EpochSet {
            participants: self.config.participants.clone(),
            observers: Vec::new(),
        };
        sets.insert(0, genesis);
        if self.config.epoch_blocks == 0 {
            return Ok(sets);
        }
        let dir = self.folder();
        let failed = |source| ConsensusError::Storage {
            dir: dir.clone(),
            source,
        };
        fs::create_dir_all(&dir).map_err(failed)?;
        let mut known: Vec<u64> = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed)? {
            // temporary files have a suffix and are no numbers
            if let Some(epoch) = entry
                .map_err(failed)?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                known.push(epoch);
            }
        }
        known.sort_unstable();
        for epoch in known.into_iter().rev().take(KEPT_EPOCHS as usize) {
            let path = dir.join(epoch.to_string());
            let unusable = |reason: String| ConsensusError::EpochSet { epoch, reason };
            let length = fs::metadata(&path).map_err(failed)?.len();
            if length > MAX_SET_BYTES {
                return Err(unusable(format!("{} has {length} bytes", path.display())));
            }
            let text = fs::read_to_string(&path).map_err(failed)?;
            let set = parse(&text).ok_or_else(|| unusable(format!("{} is damaged", path.display())))?;
            sets.insert(epoch, set);
        }
        while sets.len() as u64 > KEPT_EPOCHS {
            sets.pop_first();
        }
        Ok(sets)
    }

    fn add(&mut self, epoch: u64, set: EpochSet) -> Result<(), ConsensusError> {
        let unusable = |reason: String| ConsensusError::EpochSet { epoch, reason };
        let (got, most) = (set.participants.len(), self.config.max_peers);
        if self.config.epoch_blocks > 0 && got > most {
            return Err(unusable(format!("{got} validators, max_peers allows {most}")));
        }
        // a seat with this identity and another voting key is no seat of this node
        let me = self.config.keys.participant();
        let key = set.participants.contains(&me).then_some(&self.config.keys.bls);
        let scheme = scheme(self.config.genesis_digest, &set.participants, key);
        self.schemes
            .insert(epoch, scheme.map_err(|error| unusable(error.to_string()))?);
        self.sets.insert(epoch, set);
        while self.sets.len() as u64 > KEPT_EPOCHS {
            self.sets.pop_first();
        }
        Ok(())
    }

    /// Makes the set of `epoch` known, on disk only after [`Self::keep`]. The application's state must be at or above the last block
    /// of the epoch before; `fresh` says that it is exactly there, so that what it says must agree with what is on disk.
    pub(crate) async fn ensure(&mut self, epoch: u64, fresh: bool) -> Result<(), ConsensusError> {
        let known = self.sets.get(&epoch);
        if known.is_some() && (epoch == 0 || !fresh) {
            return Ok(());
        }
        let unusable = |reason: String| ConsensusError::EpochSet { epoch, reason };
        let asked = self.application.epoch_set(epoch).await;
        let set = asked.map_err(|error| unusable(error.to_string()))?;
        match known {
            // Who else may connect is nobody's agreement.
            Some(known) if known.participants != set.participants => Err(unusable(
                "the state gives another set than it gave before: the data folder or the application's state is damaged"
                    .into(),
            )),
            Some(_) => Ok(()),
            None => self.add(epoch, set),
        }
    }

    /// Puts the set of `epoch` on disk. Must be done before the last block of the epoch before is acknowledged: from then on the
    /// engine needs the set at a start before it can ask for it.
    pub(crate) fn keep(&self, epoch: u64) -> Result<(), ConsensusError> {
        let Some(set) = self.sets.get(&epoch).filter(|_| epoch > 0) else {
            return Ok(());
        };
        let dir = self.folder();
        let write = || {
            let (path, draft) = (dir.join(epoch.to_string()), dir.join(format!("{epoch}.new")));
            let mut file = File::create(&draft)?;
            file.write_all(print(set).as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&dir)?.sync_all()
        };
        write().map_err(|source| ConsensusError::Storage {
            dir: dir.clone(),
            source,
        })
    }

    pub(crate) fn set(&self, epoch: u64) -> Option<&EpochSet> {
        self.sets.get(&epoch)
    }

    /// Sets of other epochs that are still kept.
    pub(crate) fn others(&self, epoch: u64) -> impl Iterator<Item = &EpochSet> {
        self.sets
            .iter()
            .rev()
            .filter(move |(e, _)| **e != epoch)
            .map(|(_, set)| set)
    }

    pub(crate) fn scheme(&self, epoch: u64) -> Option<Arc<Scheme>> {
        self.schemes.get(epoch)
    }

    /// Lets go of the voting key for epochs that are over: what remains can check their votes.
    pub(crate) fn retire_before(&self, epoch: u64) {
        for (over, set) in self.sets.range(..epoch) {
            if let Ok(verifier) = scheme(self.config.genesis_digest, &set.participants, None) {
                self.schemes.insert(*over, verifier);
            }
        }
    }
}

fn print(set: &EpochSet) -> String {
    let mut text = String::new();
    for Participant { identity, bls } in &set.participants {
        text += &format!("validator {identity} {bls}\n");
    }
    for identity in &set.observers {
        text += &format!("observer {identity}\n");
    }
    text + "end\n"
}

fn parse(text: &str) -> Option<EpochSet> {
    let mut set = EpochSet::default();
    let mut lines = text.lines();
    loop {
        let words: Vec<_> = lines.next()?.split(' ').collect();
        match words[..] {
            ["validator", identity, bls] => set.participants.push(Participant {
                identity: identity.parse().ok()?,
                bls: bls.parse().ok()?,
            }),
            ["observer", identity] => set.observers.push(identity.parse().ok()?),
            ["end"] => return lines.next().is_none().then_some(set),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::ValidatorKeys;

    #[test]
    fn a_set_file_is_whole_or_refused() {
        let set = EpochSet {
            participants: (0..4).map(|_| ValidatorKeys::generate().participant()).collect(),
            observers: vec![ValidatorKeys::generate().identity.public()],
        };
        let text = print(&set);
        assert_eq!(parse(&text), Some(set));
        // a cut at any line is noticed
        let lines: Vec<_> = text.lines().collect();
        for end in 0..lines.len() {
            assert_eq!(parse(&lines[..end].join("\n")), None);
        }
        assert_eq!(parse(&format!("{text}observer 00\n")), None);
        assert_eq!(parse("validator 00 11\nend\n"), None);
    }
}
