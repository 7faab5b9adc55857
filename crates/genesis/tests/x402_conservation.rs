//! Channels against a model of a few lines, under random schedules of everything that anybody can do: every call succeeds or fails as the
//! model says, and no wei appears, disappears or goes astray.
#![allow(missing_docs)]

mod common;
#[path = "models/channels.rs"]
mod model;

use model::{World, step};
use proptest::prelude::*;

proptest! {
    #![proptest_config(opg_samples::cases(12))]

    #[test]
    fn no_wei_goes_astray(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
            world.check();
        }
        world.wind_up();
    }
}
