//! Oblivious HTTP of this project against the `ohttp` crate; see the tests. Run: `cargo test` in this folder.
