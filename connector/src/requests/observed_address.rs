//! Tells whoever asks from where the request came, which shows translators of addresses on the way.

use adit_proto::{
    OBSERVED_ADDRESS_PATH, ObservedAddress,
    http3::{Field, RequestHead, ResponseHead},
};
use adit_tunnel::{Endpoint, IncomingRequest};
use tokio::io::AsyncWriteExt as _;
use tracing::debug;

use super::answer::{self, Refusal};

/// Whether a request is for it.
pub(super) fn is_asked_for(head: &RequestHead) -> bool {
    head.path.as_deref() == Some(OBSERVED_ADDRESS_PATH)
}

/// Answers without asking for a credential: it says nothing but what the asker could know.
pub(super) async fn serve(request: IncomingRequest) {
    if request.head.method != "GET" {
        answer::refuse(request, &Refusal::method("GET"));
        return;
    }
    let address = Endpoint::from(request.remote).remote();
    let content = serde_json::to_vec(&ObservedAddress { address })
        .expect("an address is representable in JSON");
    let headers = vec![
        Field::new("content-type", "application/json"),
        Field::new("cache-control", "no-store"),
    ];
    let mut stream = request.respond(ResponseHead { status: 200, headers }).into_bytes();
    let sent = async {
        stream.write_all(&content).await?;
        stream.shutdown().await
    };
    if let Err(error) = sent.await {
        debug!(%error, "Answer was not sent");
    }
}
