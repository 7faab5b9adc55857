//! Which addresses a router connects to. Endpoints come from the chain, so from anybody: without this rule, whoever
//! registers a node could make the router talk to services beside it.

use http::Uri;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest endpoint, bytes; the registry takes no longer ones.
const MAX_URL: usize = 256;

/// Whether an address belongs to the public internet.
#[must_use]
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
        || (a == 192 && b == 0 && c == 0))
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, ..] = v6.segments();
    // Only global unicast, and of it neither documentation (2001:db8::/32) nor addresses that hold an IPv4 address:
    // Teredo (2001::/32) and 6to4 (2002::/16).
    (0x2000..0x4000).contains(&a) && a != 0x2002 && !(a == 0x2001 && (b == 0x0db8 || b == 0))
}

/// The base URL of a node, without a slash at the end, if it can be used.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn base_url(text: &str, private: bool) -> Result<String, &'static str> {
    if text.len() > MAX_URL {
        return Err("is too long");
    }
    let uri: Uri = text.parse().map_err(|_| "is no URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must start with http:// or https://");
    }
    let authority = uri.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') || uri.query().is_some() || text.contains('#') {
        return Err("must have no user name, query or fragment");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("has no host");
    }
    if let Ok(address) = host.parse::<IpAddr>()
        && !private
        && !is_public(address)
    {
        return Err("is a private address; private_endpoints = true allows it");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_in_every_disguise() {
        for bad in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001:0:1::1",
        ] {
            assert!(!is_public(bad.parse().unwrap()), "{bad}");
        }
        for good in [
            "1.1.1.1",
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(is_public(good.parse().unwrap()), "{good}");
        }
    }

    #[test]
    fn urls_of_nodes() {
        assert_eq!(
            base_url("https://node.example/base/", false).unwrap(),
            "https://node.example/base"
        );
        assert_eq!(
            base_url("http://127.0.0.1:8610", true).unwrap(),
            "http://127.0.0.1:8610"
        );
        for bad in [
            "http://127.0.0.1:8610",
            "http://[::1]/",
            "ftp://a/",
            "https://",
            "https://a@b/",
            "https://a/?q",
            "https://a/#f",
            "a.example",
            "file:///etc/passwd",
            "http://169.254.169.254/latest",
        ] {
            assert!(base_url(bad, false).is_err(), "{bad}");
        }
        assert!(base_url(&format!("https://{}", "a".repeat(300)), false).is_err());
    }
}
