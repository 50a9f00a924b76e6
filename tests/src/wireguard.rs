use crate::Host;

impl Host {
    /// Brings a WireGuard interface up by the file a user would give to `wg-quick`.
    ///
    /// The tunnel is Debian's `wireguard-go` unless the kernel brings its own. It lives until the
    /// world ends or [`Self::wg_quick_down`]. Interface names must be unique in the world, because
    /// hosts share the folder of its sockets.
    #[track_caller]
    pub fn wg_quick(&self, interface: &str, config: &str) {
        let file = self.write(format!("{interface}.conf"), config);
        self.command("chmod").arg("0600").arg(&file).check();
        self.wg_quick_command("up", interface);
    }

    /// Takes a WireGuard interface down again.
    #[track_caller]
    pub fn wg_quick_down(&self, interface: &str) {
        self.wg_quick_command("down", interface);
    }

    #[track_caller]
    fn wg_quick_command(&self, verb: &str, interface: &str) {
        self.command("wg-quick")
            .arg(verb)
            .arg(self.dir().join(format!("{interface}.conf")))
            .env("WG_QUICK_USERSPACE_IMPLEMENTATION", "wireguard-go")
            // Without it wireguard-go refuses to run where the kernel could have WireGuard itself.
            .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1")
            .check();
    }
}
