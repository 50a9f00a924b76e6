use crate::{End, Host};

impl Host {
    /// Rewrites the source of whatever leaves by this end to the end's own address, as a home
    /// router does, and drops what comes in by it without having been asked for.
    ///
    /// # Panics
    ///
    /// When `outside` belongs to another host.
    #[track_caller]
    pub fn nat(&self, outside: &End) {
        self.masquerade(outside, "masquerade");
    }

    /// As [`Self::nat`], with a port of its own for each destination, as a carrier's router does
    /// that many share, and that forgets UDP after a silence of so many seconds.
    #[track_caller]
    pub fn forgetful_nat(&self, outside: &End, seconds: u32) {
        self.masquerade(outside, "masquerade fully-random");
        for timeout in ["udp_timeout", "udp_timeout_stream"] {
            self.sysctl(&format!("net.netfilter.nf_conntrack_{timeout}"), &seconds.to_string());
        }
    }

    #[track_caller]
    fn masquerade(&self, outside: &End, statement: &str) {
        assert_eq!(self.name(), outside.host().name(), "a host masquerades its own interfaces");

        let interface = outside.interface();
        self.command("nft")
            .args(["-f", "-"])
            .stdin(format!(
                r#"table inet nat-{interface} {{
                    chain postrouting {{
                        type nat hook postrouting priority srcnat
                        oifname "{interface}" {statement}
                    }}
                    chain forward {{
                        type filter hook forward priority filter
                        iifname "{interface}" ct state != {{ established, related }} drop
                    }}
                }}"#
            ))
            .check();
    }

    /// Drops a share of what arrives at this end, in thousandths, but no address resolution:
    /// losing that would cost seconds, as on no real path.
    #[track_caller]
    pub fn lose(&self, at: &End, thousandths: u16) {
        let interface = at.interface();
        self.command("nft")
            .args(["-f", "-"])
            .stdin(format!(
                r#"table netdev lose-{interface} {{
                    chain ingress {{
                        type filter hook ingress device "{interface}" priority 0
                        meta protocol arp accept
                        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
                        numgen random mod 1000 < {thousandths} drop
                    }}
                }}"#
            ))
            .check();
    }
}
