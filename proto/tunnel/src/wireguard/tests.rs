mod handshakes;
mod packets;
mod pair;
mod peers;
mod roaming;
mod strangers;
