//! Formats of the providers: requests out, answers and events in.

pub(crate) mod anthropic;
pub(crate) mod google;
pub(crate) mod openai;

use crate::{
    answer::{Delta, Finish, Reported, Usage},
    error::AnswerError,
};

/// What every stream keeps until its end.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) reported: Reported,
    started: bool,
    finish: Option<Finish>,
    usage: Option<Usage>,
}

impl State {
    fn start(&mut self, deltas: &mut Vec<Delta>) {
        if !std::mem::replace(&mut self.started, true) {
            deltas.push(Delta::Start);
        }
    }

    fn text(deltas: &mut Vec<Delta>, text: &str) {
        if !text.is_empty() {
            deltas.push(Delta::Text(text.to_owned()));
        }
    }

    /// The end of a stream that is known to be whole.
    fn end(&mut self, missing: &'static str) -> Result<Vec<Delta>, AnswerError> {
        let mut deltas = Vec::new();
        let finish = self.finish.ok_or(AnswerError::Truncated { missing })?;
        self.start(&mut deltas);
        deltas.push(Delta::Finish(finish));
        deltas.extend(self.usage.map(Delta::Usage));
        Ok(deltas)
    }
}
