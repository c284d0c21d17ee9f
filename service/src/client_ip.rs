//! Finds the address of a client behind trusted proxies, and the network of the client.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// The header, or the gRPC metadata, to which each proxy appends the address of its peer.
pub const FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies whose [`FORWARDED_FOR`] is trusted. The default is no proxy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "ProxyList", into = "Vec<IpNet>")]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Returns the address of the client behind a peer: the right-most forwarded address that is not the address of a
    /// trusted proxy. If all are addresses of trusted proxies, returns the left-most.
    ///
    /// An entry is trusted only if a trusted proxy appended it. All entries further left may come from the client. So
    /// the search starts at the peer and goes through the entries from right to left. The search ends at the first
    /// address that is not trusted, or before the first entry that is not an address. `lines` are the values of all
    /// [`FORWARDED_FOR`] headers, in order. An entry may have a port, because some proxies write one.
    pub fn client<'a>(&self, peer: IpAddr, lines: impl IntoIterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.contains(client) {
            return client;
        }
        let lines: Vec<_> = lines.into_iter().collect();
        for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            match parse_address(entry) {
                Some(address) if self.contains(client) => client = address,
                _ => break,
            }
        }
        client
    }

    /// Returns the network of the client behind a peer. Returns `None` if the peer is a trusted proxy that sent no
    /// address of a client.
    pub fn network<'a>(&self, peer: IpAddr, lines: impl IntoIterator<Item = &'a str>) -> Option<Network> {
        let client = self.client(peer, lines);
        (client != peer.to_canonical() || !self.contains(client)).then(|| client.into())
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

fn parse_address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let address = entry.parse().ok().or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()));
    address.as_ref().map(IpAddr::to_canonical)
}

/// The proxies in the configuration: one text with commas, as in flags and the environment, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged, expecting = "give a list of addresses and networks, like 10.0.0.0/8 or 192.0.2.7")]
enum ProxyList {
    Text(String),
    List(Vec<String>),
}

impl TryFrom<ProxyList> for TrustedProxies {
    type Error = String;

    fn try_from(listed: ProxyList) -> Result<Self, String> {
        match listed {
            ProxyList::Text(text) => text.parse(),
            ProxyList::List(entries) => {
                entries.iter().map(|entry| parse_network(entry)).collect::<Result<_, _>>().map(Self)
            }
        }
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(parse_network).collect::<Result<_, _>>().map(Self)
    }
}

impl From<TrustedProxies> for Vec<IpNet> {
    fn from(proxies: TrustedProxies) -> Self {
        proxies.0.to_vec()
    }
}

/// Parses a network, or a single address. Clients are compared in canonical form, so an IPv4-mapped network is
/// converted to an IPv4 network.
fn parse_network(entry: &str) -> Result<IpNet, String> {
    let entry = entry.trim();
    let parse = || match entry.split_once('/') {
        None => entry.parse::<IpAddr>().ok().map(IpNet::from),
        Some((address, length)) => IpNet::new(address.parse().ok()?, length.parse().ok()?).ok(),
    };
    let network = parse()
        .ok_or_else(|| format!("{entry:?} is not an address or network; give one like 192.0.2.7 or 10.0.0.0/8"))?;
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    Ok(match mapped {
        Some((address, length)) => Ipv4Net::new(address, length).map_or(network, IpNet::V4),
        None => network,
    })
}

/// The network of a client: the first 24 bits of an IPv4 address, or the first 48 bits of an IPv6 address. Most likely,
/// all addresses of such a network belong to the same organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let length = if address.is_ipv4() { 24 } else { 48 };
        Self(IpNet::new(address, length).map_or_else(|_| address.into(), |network| network.trunc()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn proxies(list: &str) -> TrustedProxies {
        list.parse().unwrap()
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        let proxies = proxies("10.0.0.0/8, 192.0.2.7, fd00::/8");
        proxies.client(peer.parse().unwrap(), lines.iter().copied()).to_string()
    }

    #[test]
    fn the_client_is_the_peer_of_the_last_trusted_proxy() {
        assert_eq!(client("10.1.2.3", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.1.2.3", &["203.0.113.9, 192.0.2.7"]), "203.0.113.9");
        assert_eq!(client("10.1.2.3", &["203.0.113.9", "10.9.9.9", "192.0.2.7,10.8.8.8"]), "203.0.113.9");
        assert_eq!(client("fd00::1", &["2001:db8::9\t,\tfd00::2"]), "2001:db8::9");
        assert_eq!(client("10.1.2.3", &["203.0.113.9:4711, [fd00::2]:80"]), "203.0.113.9", "some proxies write ports");
        assert_eq!(client("10.1.2.3", &[]), "10.1.2.3");
        assert_eq!(client("10.1.2.3", &["10.0.0.1, 10.0.0.2"]), "10.0.0.1", "the client itself is a proxy");
    }

    #[test]
    fn a_trusted_proxy_without_a_forwarded_address_is_not_a_client() {
        let network = |peer: &str, lines: &[&str]| {
            let network = proxies("10.0.0.0/8").network(peer.parse().unwrap(), lines.iter().copied());
            network.map(|network| network.to_string())
        };
        assert_eq!(network("10.1.2.3", &[]), None);
        assert_eq!(network("::ffff:10.1.2.3", &["unknown"]), None);
        assert_eq!(network("10.1.2.3", &["10.9.9.9"]).as_deref(), Some("10.9.9.0/24"));
        assert_eq!(network("203.0.113.9", &[]).as_deref(), Some("203.0.113.0/24"));
    }

    #[test]
    fn an_address_that_the_client_sends_is_never_trusted() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9", "the request did not come through a proxy");
        assert_eq!(client("192.0.2.8", &["198.51.100.1"]), "192.0.2.8", "the peer is not a trusted proxy");
        assert_eq!(client("10.1.2.3", &["198.51.100.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.1.2.3", &["198.51.100.1", "203.0.113.9"]), "203.0.113.9", "in a header of its own");
        assert_eq!(
            client("10.1.2.3", &["10.0.0.1, 203.0.113.9"]),
            "203.0.113.9",
            "the client sends the address of a proxy"
        );
        assert_eq!(
            client("10.1.2.3", &["198.51.100.1, 192.0.2.7, 203.0.113.9"]),
            "203.0.113.9",
            "the client sends the addresses of a client and a proxy"
        );
    }

    #[test]
    fn a_malformed_entry_ends_the_search() {
        for entry in [
            "",
            " ",
            "unknown",
            "_hidden",
            "203.0.113.300",
            "203.0.113",
            "0xcb007109",
            "203.0.113.09",
            "203.0.113.9/32",
            "203.0.113.9 198.51.100.1",
            "203.0.113.9;",
            "\"203.0.113.9\"",
            "for=203.0.113.9",
            "[2001:db8::9]:",
            "2001:db8::9%eth0",
            "203.0.113.9:99999",
            "\u{ff12}03.0.113.9",
        ] {
            assert_eq!(client("10.1.2.3", &[entry]), "10.1.2.3", "{entry:?}");
            assert_eq!(client("10.1.2.3", &["198.51.100.1", &format!("{entry},10.4.4.4")]), "10.4.4.4", "{entry:?}");
        }
        assert_eq!(client("10.1.2.3", &["198.51.100.1,"]), "10.1.2.3");
        assert_eq!(client("10.1.2.3", &[&",".repeat(100_000)]), "10.1.2.3");
        assert_eq!(client("10.1.2.3", &[&"10.0.0.1,".repeat(10_000), "10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn an_ipv4_mapped_address_is_the_ipv4_address() {
        assert_eq!(client("::ffff:10.1.2.3", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.1.2.3", &["::ffff:203.0.113.9, ::ffff:192.0.2.7"]), "203.0.113.9");
        assert_eq!(client("::ffff:203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        let mapped = proxies("::ffff:10.0.0.0/104");
        assert_eq!(mapped.client([10, 1, 2, 3].into(), ["203.0.113.9"]).to_string(), "203.0.113.9");
        assert_eq!(mapped.client([11, 1, 2, 3].into(), ["203.0.113.9"]).to_string(), "11.1.2.3");
    }

    #[test]
    fn a_network_is_the_first_24_bits_of_ipv4_or_48_bits_of_ipv6() {
        let network = |address: &str| Network::from(address.parse::<IpAddr>().unwrap()).to_string();
        assert_eq!(network("203.0.113.9"), "203.0.113.0/24");
        assert_eq!(network("::ffff:203.0.113.200"), "203.0.113.0/24");
        assert_eq!(network("2001:db8:1:2::9"), "2001:db8:1::/48");
    }

    #[test]
    fn proxies_are_a_text_or_a_list() {
        let read = |value| serde_json::from_value::<TrustedProxies>(value).map_err(|error| error.to_string());
        for none in [json!(""), json!(" "), json!([])] {
            assert!(read(none).unwrap().0.is_empty());
        }
        for two in [json!("10.0.0.0/8, ::1"), json!(["10.0.0.0/8", "::1"])] {
            let proxies = read(two).unwrap();
            assert_eq!(serde_json::to_value(&proxies).unwrap(), json!(["10.0.0.0/8", "::1/128"]));
        }
        for wrong in
            ["10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "010.0.0.0/8", "::1/129", "proxy", "10.0.0.1,,10.0.0.2", ","]
        {
            let error = read(json!(wrong)).unwrap_err();
            assert!(error.contains("give one like"), "{wrong}: {error}");
        }
        assert!(read(json!(["10.0.0.1,10.0.0.2"])).is_err());
        assert!(read(json!(10)).unwrap_err().contains("give a list of addresses"));
    }
}
