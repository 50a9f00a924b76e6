mod dialler;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use adit_proto::{
    http3::{Field, RequestHead},
    masque::ProxyRequest,
};
use adit_tunnel::{KeyPair, SpliceCounters, splice};
use anyhow::{Context as _, ensure};
use tokio::net::{TcpListener, TcpStream};

use self::dialler::Dialler;
use crate::{
    enrolled_device::{EnrolledDevice, EnrolmentKey},
    event,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    enrolment_key: EnrolmentKey,
    /// Where to listen for connections of TCP.
    #[arg(long)]
    listen: SocketAddr,
    /// Where each goes to in the end.
    target: SocketAddr,
}

/// Carries each connection of TCP by a CONNECT over a QUIC connection of its own to the first
/// connector, until killed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let token = args.enrolment_key.token()?;
    let key = KeyPair::try_generate().context("failed to make a key")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;

    runtime.block_on(async {
        let device = EnrolledDevice::join(&token, "streams", &key).await?;
        let credential = device.credential().await.context("no credential")?;
        let config = device.config().await.context("no configuration")?;
        let mut connectors = config.sites.iter().flat_map(|site| &site.connectors);
        let connector = connectors.next().context("no connector")?;
        let endpoint = connector.endpoints.first().context("a connector without an endpoint")?;
        let endpoint: SocketAddr = endpoint.parse().context("no address")?;
        let asked = ProxyRequest::ConnectTcp {
            host: args.target.ip().to_string(),
            port: args.target.port(),
        };
        let mut head = asked.head(&endpoint.to_string());
        head.headers.push(Field::new("proxy-authorization", format!("Bearer {credential}")));

        let dialler = Arc::new(Dialler::start(&key, endpoint, connector.pin)?);
        let listener = TcpListener::bind(args.listen).await.context("failed to listen")?;
        event::print_listening(listener.local_addr().context("failed to read the port")?);
        loop {
            let (stream, _peer) = listener.accept().await.context("failed to accept")?;
            let (dialler, head) = (Arc::clone(&dialler), head.clone());
            tokio::spawn(async move {
                if let Err(error) = forward(stream, &dialler, head).await {
                    eprintln!("error: {error:#}");
                }
            });
        }
    })
}

async fn forward(
    mut stream: TcpStream,
    dialler: &Dialler,
    head: RequestHead,
) -> anyhow::Result<()> {
    stream.set_nodelay(true).context("failed to send at once")?;
    let connection = dialler.connect().await.context("no connection")?;
    let answer = connection.request(head).await.context("no answer")?;
    let status = answer.head.status;
    ensure!(status == 200, "the connector answered {status}");
    let mut bytes = answer.body.into_bytes();
    let nobodys = AtomicU64::new(0);
    let counters = SpliceCounters { from_peer: &nobodys, to_peer: &nobodys };
    // Whoever breaks off is none of our business.
    let _ = splice(&mut bytes, &mut stream, counters).await;

    Ok(())
}
