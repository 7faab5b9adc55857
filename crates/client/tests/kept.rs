//! Checkpoints on disk: they outlive the process, never go back, and a spoilt file is no empty one.
#![allow(missing_docs)]

use alloy_primitives::B256;
use opg_client::{KeptCheckpoints, KeptError};
use opg_light_client::Checkpoint;

const GENESIS: B256 = B256::repeat_byte(7);

fn point(epoch: u64, hash: u8) -> Checkpoint {
    Checkpoint {
        epoch,
        height: epoch * 10 - 1,
        hash: B256::repeat_byte(hash),
        timestamp: epoch * 1_000,
        set_hash: B256::repeat_byte(9),
    }
}

#[test]
fn what_was_verified_is_there_after_a_restart_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("checkpoints");
    let kept = KeptCheckpoints::in_folder(&folder, GENESIS);
    assert_eq!(kept.load().unwrap().newest(), None, "no file is an empty book");
    kept.keep(&[]).unwrap();
    assert!(!kept.path().exists());
    kept.keep(&[point(1, 1), point(2, 2), point(3, 3)]).unwrap();
    // Another process.
    let again = KeptCheckpoints::in_folder(&folder, GENESIS);
    assert_eq!(again.load().unwrap().newest(), Some(&point(3, 3)));
    // A shorter history is no way back.
    again.keep(&[point(1, 1)]).unwrap();
    assert_eq!(again.load().unwrap().newest(), Some(&point(3, 3)));
    again.keep(&[point(3, 3), point(4, 4)]).unwrap();
    assert_eq!(kept.load().unwrap().newest(), Some(&point(4, 4)));
    // Another history is refused, and the file stays.
    let before = std::fs::read(kept.path()).unwrap();
    let forged = kept.keep(&[point(3, 99), point(4, 99), point(5, 99)]);
    assert!(matches!(forged, Err(KeptError::Conflict { .. })), "{forged:?}");
    assert_eq!(std::fs::read(kept.path()).unwrap(), before);
    // Another network has another file.
    let other = KeptCheckpoints::in_folder(&folder, B256::repeat_byte(8));
    assert_eq!(other.load().unwrap().newest(), None);
}

#[test]
fn a_file_that_is_no_book_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let kept = KeptCheckpoints::in_folder(dir.path(), GENESIS);
    kept.keep(&[point(1, 1), point(2, 2)]).unwrap();
    let good = std::fs::read(kept.path()).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let swapped = {
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["points"].as_array_mut().unwrap().reverse();
        value.to_string()
    };
    let other = text.replace(&format!("{GENESIS}"), &format!("{}", B256::repeat_byte(8)));
    for bad in [
        String::new(),
        "{}".into(),
        text[..text.len() - 1].to_owned(),
        swapped,
        other,
    ] {
        std::fs::write(kept.path(), &bad).unwrap();
        assert!(matches!(kept.load(), Err(KeptError::Malformed { .. })), "{bad}");
        assert!(kept.keep(&[point(3, 3)]).is_err(), "nothing is kept over it: {bad}");
        assert_eq!(std::fs::read(kept.path()).unwrap(), bad.as_bytes());
    }
    std::fs::write(kept.path(), good).unwrap();
    assert_eq!(kept.load().unwrap().newest(), Some(&point(2, 2)));
}

/// Two commands that finish together: neither loses the other's points.
#[test]
fn writers_do_not_lose_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let kept = KeptCheckpoints::in_folder(dir.path(), GENESIS);
    std::thread::scope(|scope| {
        for last in 1..=8u64 {
            let kept = &kept;
            scope.spawn(move || {
                let points: Vec<_> = (1..=last).map(|epoch| point(epoch, epoch as u8)).collect();
                kept.keep(&points).unwrap();
            });
        }
    });
    let book = kept.load().unwrap();
    assert_eq!(book.newest(), Some(&point(8, 8)));
    assert!((1..=8).all(|epoch| book.get(epoch) == Some(&point(epoch, epoch as u8))));
}
