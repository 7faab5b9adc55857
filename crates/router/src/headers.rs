//! What passes from one side to the other.

use http::{HeaderMap, HeaderName, header};

/// Says which node answered, and asks for a certain one.
pub(crate) const NODE: HeaderName = HeaderName::from_static("x-opg-node");
/// Identifier of the receipt.
pub(crate) const RECEIPT_ID: HeaderName = HeaderName::from_static("x-opg-receipt-id");

/// Headers between two neighbours on the path (RFC 9110, section 7.6.1), and such as later ones.
const HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// What tells a node who the client is, or belongs to the router's own host.
const OF_CLIENT: [&str; 14] = [
    "host",
    "cookie",
    "expect",
    "forwarded",
    "from",
    "origin",
    "referer",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-opg-node",
];
/// What a node must not say in the router's name.
const OF_NODE: [&str; 6] = [
    "set-cookie",
    "alt-svc",
    "clear-site-data",
    "server",
    "strict-transport-security",
    "x-opg-node",
];

/// Headers of a client's request, for a node.
pub(crate) fn request(from: &HeaderMap) -> HeaderMap {
    pass(from, &OF_CLIENT, |name| {
        name.starts_with("cf-") || name.starts_with("x-client-")
    })
}

/// Headers of a node's answer, for a client. CORS is the router's own affair.
pub(crate) fn response(from: &HeaderMap) -> HeaderMap {
    pass(from, &OF_NODE, |name| name.starts_with("access-control-"))
}

fn pass(from: &HeaderMap, without: &[&str], and_without: fn(&str) -> bool) -> HeaderMap {
    // A header that `Connection` names is the neighbour's, too.
    let named: Vec<String> = from
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    from.iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            !(HOP.contains(&name) || without.contains(&name) || and_without(name) || named.iter().any(|n| n == name))
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn payments_pass_and_addresses_do_not() {
        let passed = request(&map(&[
            ("payment-signature", "abc"),
            ("authorization", "Bearer s"),
            ("content-type", "application/json"),
            ("x-opg-anything", "1"),
            ("x-forwarded-for", "203.0.113.9"),
            ("cf-connecting-ip", "203.0.113.9"),
            ("cookie", "a=b"),
            ("host", "router.example"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
        ]));
        let mut names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["authorization", "content-type", "payment-signature", "x-opg-anything"]
        );
    }

    #[test]
    fn receipts_pass_and_cookies_do_not() {
        let passed = response(&map(&[
            ("payment-required", "abc"),
            ("payment-response", "abc"),
            ("x-opg-receipt-id", "0x1"),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "https://evil.example"),
            ("x-opg-node", "0xforged"),
        ]));
        assert_eq!(passed.len(), 3);
    }
}
