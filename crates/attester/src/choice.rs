//! Which attester a node uses.

use crate::{
    Attester,
    error::AttestError,
    nsm::Nsm,
    software::SoftwareAttester,
    tsm::{Provider, Tsm},
};
use opg_evidence::Kind;
use std::{fmt, path::PathBuf, str::FromStr};

/// The kernel's answer to a new report entry where no provider is registered.
const ENXIO: i32 = 6;

/// `--attester`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Choice {
    /// Whatever hardware the machine has; an error where it has none. Never software.
    #[default]
    Auto,
    /// The Nitro security module.
    Nitro,
    /// The kernel's report interface on TDX.
    Tdx,
    /// The kernel's report interface on SEV-SNP.
    Snp,
    /// A software attester: simulated evidence for development networks.
    Software,
}

impl Choice {
    /// Every choice.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Nitro, Self::Tdx, Self::Snp, Self::Software];

    /// The word for commands and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Nitro => "nitro",
            Self::Tdx => "tdx",
            Self::Snp => "snp",
            Self::Software => "software",
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no attester.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("attester {got:?}, expected auto, nitro, tdx, snp or software")]
pub struct UnknownChoice {
    /// The word found.
    pub got: String,
}

impl FromStr for Choice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|choice| choice.as_str() == text)
            .ok_or_else(|| UnknownChoice { got: text.to_owned() })
    }
}

/// Where the hardware's interfaces are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Device of the Nitro security module.
    pub nsm: PathBuf,
    /// The kernel's report interface (configfs).
    pub tsm: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            nsm: "/dev/nsm".into(),
            tsm: "/sys/kernel/config/tsm/report".into(),
        }
    }
}

/// The hardware that this machine has; `None` if it has none. A Nitro enclave has no report interface and a
/// confidential machine no Nitro device, so the order does not matter.
///
/// # Errors
/// [`AttestError::Io`] or [`AttestError::UnknownProvider`] for an interface that is there and cannot be used: that is
/// not the same as none.
pub fn detect(paths: &Paths) -> Result<Option<Kind>, AttestError> {
    if exists(&paths.nsm)? {
        return Ok(Some(Kind::Nitro));
    }
    if exists(&paths.tsm)? {
        return match Tsm::open(&paths.tsm) {
            // Kernels have the interface built in; without a confidential machine nobody serves it.
            Err(AttestError::Io { source, .. }) if source.raw_os_error() == Some(ENXIO) => Ok(None),
            tsm => tsm.map(|tsm| Some(tsm.kind())),
        };
    }
    Ok(None)
}

fn exists(path: &std::path::Path) -> Result<bool, AttestError> {
    path.try_exists().map_err(AttestError::io("cannot look for", path))
}

/// The attester of a choice. `software` is used for [`Choice::Software`] and for nothing else.
///
/// # Errors
/// [`AttestError::NoHardware`] for `auto` on a machine without any; [`AttestError::OtherHardware`] where the named one is
/// not the machine's; [`AttestError::NoSoftware`]; those of [`detect`].
pub fn open(
    choice: Choice,
    paths: &Paths,
    software: Option<SoftwareAttester>,
) -> Result<Box<dyn Attester>, AttestError> {
    let found = match choice {
        Choice::Software => {
            let software = software.ok_or(AttestError::NoSoftware)?;
            return Ok(Box::new(software));
        }
        _ => detect(paths)?,
    };
    let wanted = match choice {
        Choice::Nitro => Some(Kind::Nitro),
        Choice::Tdx => Some(Kind::Tdx),
        Choice::Snp => Some(Kind::Snp),
        _ => None,
    };
    let Some(found) = found else {
        return Err(match wanted {
            None => AttestError::NoHardware {
                nsm: paths.nsm.clone(),
                tsm: paths.tsm.clone(),
            },
            Some(_) => AttestError::OtherHardware {
                asked: choice.as_str(),
                found: "none".to_owned(),
            },
        });
    };
    if wanted.is_some_and(|wanted| wanted != found) {
        return Err(AttestError::OtherHardware {
            asked: choice.as_str(),
            found: found.to_string(),
        });
    }
    Ok(match found {
        Kind::Nitro => Box::new(Nsm::open(&paths.nsm)?),
        _ => Box::new(Tsm::open(&paths.tsm)?),
    })
}

impl Provider {
    /// Kind of its evidence.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::TdxGuest => Kind::Tdx,
            Self::SevGuest => Kind::Snp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SoftwareFormat;

    #[test]
    fn words() {
        for choice in Choice::ALL {
            assert_eq!(choice.as_str().parse(), Ok(choice));
        }
        assert!("Software".parse::<Choice>().is_err());
        assert_eq!(Choice::default(), Choice::Auto);
    }

    /// A machine without hardware, with a software attester at hand: only its own name takes it.
    #[test]
    fn software_is_never_a_fallback() {
        let paths = Paths {
            nsm: "/nonexistent/nsm".into(),
            tsm: "/nonexistent/tsm".into(),
        };
        let software = || Some(SoftwareAttester::new(SoftwareFormat::Nitro, [7; 32]).unwrap());
        assert_eq!(detect(&paths).unwrap(), None);
        assert!(matches!(
            open(Choice::Auto, &paths, software()),
            Err(AttestError::NoHardware { .. })
        ));
        for choice in [Choice::Nitro, Choice::Tdx, Choice::Snp] {
            assert!(matches!(
                open(choice, &paths, software()),
                Err(AttestError::OtherHardware { .. })
            ));
        }
        assert!(open(Choice::Software, &paths, software()).is_ok());
        assert!(matches!(
            open(Choice::Software, &paths, None),
            Err(AttestError::NoSoftware)
        ));
    }

    /// Hardware that is there and does not work is an error, not a reason to look further.
    #[test]
    fn broken_hardware_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths {
            nsm: folder.path().join("nsm"),
            tsm: folder.path().join("tsm"),
        };
        std::fs::write(&paths.nsm, b"no device").unwrap();
        assert_eq!(detect(&paths).unwrap(), Some(Kind::Nitro));
        let nsm = open(Choice::Auto, &paths, None).unwrap();
        assert!(matches!(nsm.attest(&[1; 32], 0), Err(AttestError::Io { .. })));
        assert!(matches!(
            open(Choice::Tdx, &paths, None),
            Err(AttestError::OtherHardware { .. })
        ));
        std::fs::remove_file(&paths.nsm).unwrap();
        // A folder where nobody serves reports.
        std::fs::create_dir(&paths.tsm).unwrap();
        assert!(matches!(detect(&paths), Err(AttestError::Io { .. })));
    }
}
