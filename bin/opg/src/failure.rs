//! Errors of commands, each with the exit code that the interface promises.

use std::process::ExitCode;

use opg_client::ClientError;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A check failed, or something was refused or unavailable: exit code 1.
    Failed(eyre::Report),
    /// The command or its input is wrong: exit code 2.
    Input(eyre::Report),
}

impl Failure {
    /// Something failed.
    pub(crate) fn failed(error: impl Into<eyre::Report>) -> Self {
        Self::Failed(error.into())
    }

    /// The caller gave something wrong.
    pub(crate) fn input(error: impl Into<eyre::Report>) -> Self {
        Self::Input(error.into())
    }

    /// The caller gave something wrong; `message` says what and what to do.
    pub(crate) fn usage(message: impl std::fmt::Display) -> Self {
        Self::Input(eyre::eyre!("{message}"))
    }

    /// 1 or 2.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Input(_) => ExitCode::from(2),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Failed(report) | Self::Input(report)) = self;
        // Messages of this project include their cause, so a cause is added only if it says something new.
        let mut text = report.to_string();
        for cause in report.chain().skip(1) {
            let cause = cause.to_string();
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        f.write_str(&text)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        if error.is_input() {
            Self::Input(error.into())
        } else {
            Self::Failed(error.into())
        }
    }
}

impl From<eyre::Report> for Failure {
    fn from(report: eyre::Report) -> Self {
        Self::Failed(report)
    }
}

macro_rules! through_client_error {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                ClientError::from(error).into()
            }
        }
    )*};
}
through_client_error!(opg_client::NetworkError, opg_client::WalletError);
