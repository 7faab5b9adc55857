//! Money is conserved, to the wei, under random schedules of everything that anybody can do.
#![allow(missing_docs)]

mod common;
#[path = "models/payments.rs"]
mod model;

use model::{Step, World, step};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn money_is_conserved(steps in prop::collection::vec(step(), 10..60)) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
        }
        world.check();
        world.finish();
    }
}

/// One schedule in which every step checks everything.
#[test]
fn money_is_conserved_at_every_step() {
    let mut world = World::new();
    for i in 0..12u64 {
        let (payer, node) = (i as usize % 3, i as usize % 2);
        for step in [
            Step::Pay {
                payer,
                node,
                amount: 1_000_003 * u128::from(i),
            },
            Step::Record {
                jobs: vec![i as usize],
                charge: 999_999 * i / 2,
                mode: (i % 4) as u8,
                router: i % 3 == 0,
            },
            Step::Settle { job: i as usize },
            Step::Tick { seconds: 90 * i },
            Step::CreditSettled {
                jobs: (0..=i as usize).step_by(2).collect(),
            },
            Step::Withdraw {
                payee: i as usize % 7,
                node,
                max: 2,
            },
        ] {
            world.apply(&step);
            world.check();
        }
    }
    world.finish();
}
