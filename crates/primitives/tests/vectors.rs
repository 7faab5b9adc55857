//! The primitives against the golden vectors, which another implementation wrote.

use opg_primitives::{
    Address, B256, cbor,
    domain::Tag,
    hash, ids, merkle,
    money::{self, Amount, Price, Split, Usage},
};
use opg_vectors::{bytes, list, load, text};
use serde_json::Value;

fn b256(value: &Value) -> B256 {
    B256::from_slice(&bytes(value))
}

fn address(value: &Value) -> Address {
    Address::from_slice(&bytes(value))
}

#[test]
fn hashes() {
    let vectors = load("hashes");
    for case in list(&vectors["keccak"]) {
        assert_eq!(hash::keccak(&bytes(&case["input"])), b256(&case["hash"]));
    }
    for case in list(&vectors["tagged"]) {
        let name = text(&case["tag"]);
        let tag = *Tag::ALL.iter().find(|tag| tag.as_str() == name).expect("a known tag");
        let parts: Vec<Vec<u8>> = list(&case["parts"]).iter().map(bytes).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        assert_eq!(hash::tagged(tag, &parts), b256(&case["hash"]), "{name}");
    }
}

#[test]
fn cbor_accepts_the_deterministic_encodings_only() {
    let vectors = load("cbor");
    let limits = cbor::Limits::for_bytes(4096);
    for case in list(&vectors["accepted"]) {
        let encoded = bytes(&case["hex"]);
        let value =
            cbor::decode_strict(&encoded, limits).unwrap_or_else(|error| panic!("{}: {error}", text(&case["name"])));
        assert_eq!(value.to_vec(), encoded, "{}", case["name"]);
    }
    for case in list(&vectors["accepted_with_tags"]) {
        let encoded = bytes(&case["hex"]);
        assert!(matches!(
            cbor::decode_strict(&encoded, limits),
            Err(cbor::CborError::UnexpectedTag { at: 0 })
        ));
        let value = cbor::decode_strict(&encoded, limits.with_tags()).expect("tags asked for");
        assert_eq!(value.to_vec(), encoded);
    }
    for case in list(&vectors["rejected"]) {
        let result = cbor::decode_strict(&bytes(&case["hex"]), limits);
        assert!(result.is_err(), "{} was accepted as {result:?}", case["name"]);
    }
}

#[test]
fn merkle_trees_and_paths() {
    let vectors = load("merkle");
    let cores: Vec<B256> = list(&vectors["core_hashes"]).iter().map(b256).collect();
    let leaves: Vec<B256> = cores.iter().copied().map(merkle::leaf).collect();
    for case in list(&vectors["trees"]) {
        let count = case["count"].as_u64().expect("count") as usize;
        let height = case["height"].as_u64().expect("height");
        let root = merkle::root(&leaves[..count]);
        assert_eq!(root, b256(&case["tree_root"]));
        assert_eq!(
            merkle::batch_root_of(height, &cores[..count]),
            Some(b256(&case["batch_root"]))
        );
        for (i, path) in list(&case["paths"]).iter().enumerate() {
            let path: Vec<B256> = list(path).iter().map(b256).collect();
            assert_eq!(merkle::prove(&leaves[..count], i).as_ref(), Some(&path));
            assert_eq!(merkle::verify_tree(leaves[i], i as u32, count as u32, &path), Ok(root));
        }
    }
}

#[test]
fn charges_and_splits() {
    let vectors = load("money");
    for case in list(&vectors["charges"]) {
        let price: Price = serde_json::from_value(case["price"].clone()).expect("a price");
        let usage: Usage = serde_json::from_value(case["usage"].clone()).expect("a usage");
        let royalty = case["royalty_bps"].as_u64().expect("a royalty") as u16;
        let got = money::charge(&price, usage, royalty).expect("a charge");
        assert_eq!(got.wei().to_string(), text(&case["charge"]));
    }
    for case in list(&vectors["splits"]) {
        let charge = Amount::parse_wei(text(&case["charge"])).expect("an amount");
        let royalty = case["royalty_bps"].as_u64().expect("a royalty") as u16;
        let flag = |name: &str| case[name].as_bool().expect("a flag");
        let got = money::split(charge, royalty, flag("router"), flag("auditors"), flag("creator"));
        let expected: Split = serde_json::from_value(case["split"].clone()).expect("a split");
        assert_eq!(got, Ok(expected));
    }
}

#[test]
fn identifiers() {
    let v = load("ids");
    let node_id = ids::node_id(address(&v["operator"]), b256(&v["salt"]));
    assert_eq!(node_id.to_string(), text(&v["node_id"]));
    let keyset: ids::Keyset = serde_json::from_value(v["keyset"].clone()).expect("a keyset");
    assert_eq!(keyset.node_id, node_id);
    assert_eq!(keyset.digest().to_string(), text(&v["keyset_digest"]));
    let deposit = ids::deposit_address(address(&v["vault"]), address(&v["implementation"]), node_id);
    assert_eq!(deposit, address(&v["deposit_address"]));
    let payment = ids::payment_id(address(&v["payer"]), b256(&v["nonce"]));
    assert_eq!(payment.to_string(), text(&v["payment_id"]));
    // JSON and text forms.
    assert_eq!(serde_json::to_value(payment).expect("JSON"), v["payment_id"]);
    assert_eq!(text(&v["node_id"]).trim_start_matches("0x").parse(), Ok(node_id));
    assert!("0x12".parse::<ids::NodeId>().is_err());
    assert!(format!("0x0x{}", "0".repeat(62)).parse::<ids::NodeId>().is_err());
}
