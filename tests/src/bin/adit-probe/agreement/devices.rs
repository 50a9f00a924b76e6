use std::{collections::BTreeSet, net::SocketAddr, slice, sync::Arc, time::Duration};

use adit_proto::{ClientMessage, ConnectorMessage, FlowTuple, JoinToken, Pin, Protocol, Verdict};
use adit_tests::ApiConnection;
use adit_tunnel::{KeyPair, SessionReceiver, SessionSender, connect};
use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};

use super::{Args, Decision, Question, scenery::Scenery};
use crate::enrolled_device::EnrolledDevice;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) device_id: String,
    pub(super) user_id: String,
    pub(super) groups: BTreeSet<String>,
}

/// Devices that have joined, each with a session at the connector.
pub(super) struct Devices {
    subjects: Vec<Subject>,
    sessions: Vec<Session>,
}

struct Session {
    sender: SessionSender<ClientMessage>,
    receiver: SessionReceiver<ConnectorMessage>,
}

/// Questions that are under way on one session.
const WINDOW: usize = 256;

/// Longer than any answer takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

impl Devices {
    /// Lets a device of each user join and open a session.
    pub(super) async fn enroll(
        args: &Args,
        api: &mut ApiConnection,
        scenery: &Scenery,
    ) -> anyhow::Result<Self> {
        let (endpoint, pin) = connector(api, &args.site)?;
        let (mut subjects, mut sessions) = (Vec::new(), Vec::new());
        for user_id in scenery.users() {
            let key = api.request(
                "POST",
                "/v1/enrollment-keys",
                &[],
                Some(&json!({ "name": "agreement", "user_id": user_id, "approved": true })),
            )?;
            let token: JoinToken = key.body["key"].as_str().context("no key")?.parse()?;
            let (device_id, session) =
                join(&token, endpoint, pin).await.context("failed to join")?;
            subjects.push(Subject {
                device_id,
                user_id: user_id.clone(),
                groups: scenery.groups_of(user_id),
            });
            sessions.push(session);
        }

        Ok(Self { subjects, sessions })
    }

    pub(super) fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    pub(super) fn count(&self) -> usize {
        self.subjects.len()
    }

    /// Waits until the connector knows a resource, and with it all that was written before.
    pub(super) async fn wait_for_resource(
        &mut self,
        (address, resource_id): (std::net::IpAddr, String),
    ) -> anyhow::Result<()> {
        let question =
            Question { device: 0, destination: address, port: 1, protocol: Protocol::Udp };
        let session = self.sessions.first_mut().context("no devices")?;
        timeout(PATIENCE, async {
            loop {
                let decisions = session.ask(slice::from_ref(&question)).await?;
                let found = decisions.first().and_then(|decision| decision.resource_id.as_ref());
                if found == Some(&resource_id) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_elapsed| bail!("the connector never learnt of {resource_id}"))
    }

    /// Asks the connector, on the session of each question's device.
    pub(super) async fn ask(
        &mut self,
        questions: &Arc<[Question]>,
    ) -> anyhow::Result<Vec<Decision>> {
        let mut tasks = JoinSet::new();
        for (device, mut session) in self.sessions.drain(..).enumerate() {
            let questions = Arc::clone(questions);
            tasks.spawn(async move {
                let own = questions.iter().enumerate().filter(|(_, it)| it.device == device);
                let (places, questions): (Vec<_>, Vec<_>) =
                    own.map(|(place, question)| (place, question.clone())).unzip();
                let decisions = session.ask(&questions).await;
                (device, session, places, decisions)
            });
        }
        let mut decisions = vec![None; questions.len()];
        let mut sessions = Vec::new();
        while let Some(result) = tasks.join_next().await {
            let (device, session, places, answers) = result?;
            for (place, decision) in places.into_iter().zip(answers?) {
                decisions[place] = Some(decision);
            }
            sessions.push((device, session));
        }
        sessions.sort_by_key(|(device, _)| *device);
        self.sessions = sessions.into_iter().map(|(_, session)| session).collect();

        decisions.into_iter().map(|it| it.context("a question has no answer")).collect()
    }
}

impl Session {
    async fn ask(&mut self, questions: &[Question]) -> anyhow::Result<Vec<Decision>> {
        let mut decisions = Vec::with_capacity(questions.len());
        for questions in questions.chunks(WINDOW) {
            for (place, question) in questions.iter().enumerate() {
                let any = if question.destination.is_ipv4() { "0.0.0.0" } else { "::" };
                let flow = FlowTuple {
                    protocol: question.protocol,
                    source: any.parse()?,
                    source_port: 0,
                    destination: question.destination,
                    destination_port: question.port,
                };
                let request_id = place as u64;
                self.sender.send(&ClientMessage::Explain { request_id, flow }).await?;
            }
            for place in 0..questions.len() as u64 {
                decisions.push(self.answer_to(place).await?);
            }
        }

        Ok(decisions)
    }

    async fn answer_to(&mut self, question: u64) -> anyhow::Result<Decision> {
        loop {
            let message = timeout(PATIENCE, self.receiver.next()).await;
            let message = message.context("no answer")?.context("the session was closed")??;
            match message {
                ConnectorMessage::Explained {
                    request_id,
                    verdict,
                    reason,
                    resource_id,
                    policy_id,
                    policy_name: _,
                } => {
                    ensure!(request_id == question, "{request_id} answers {question}");
                    return Ok(Decision {
                        allowed: verdict == Verdict::Allow,
                        reason: reason.code().to_owned(),
                        resource_id: resource_id.map(|id| id.to_string()),
                        policy_id: policy_id.map(|id| id.to_string()),
                    });
                }
                // Policies change; the credential stays.
                ConnectorMessage::RefreshNow => {}
                ConnectorMessage::Admitted { .. }
                | ConnectorMessage::Refused { .. }
                | ConnectorMessage::Speak
                | ConnectorMessage::Draining
                | ConnectorMessage::Denied { .. }
                | ConnectorMessage::Pong { .. } => bail!("not an answer: {message:?}"),
            }
        }
    }
}

/// Where the connector of a site listens, and its pin.
fn connector(api: &mut ApiConnection, site: &str) -> anyhow::Result<(SocketAddr, Pin)> {
    let connectors = api.list("/v1/connectors")?;
    let connector = connectors.iter().find(|it| it["site_id"] == site).context("no connector")?;
    let endpoint = connector["endpoints"][0].as_str().context("it has no endpoint")?;
    let pin = serde_json::from_value(connector["pin"].clone()).context("it has no pin")?;

    Ok((endpoint.parse()?, pin))
}

/// Enrols a device and opens its session, as the client does.
async fn join(
    token: &JoinToken,
    endpoint: SocketAddr,
    pin: Pin,
) -> anyhow::Result<(String, Session)> {
    let key = KeyPair::try_generate()?;
    let device = EnrolledDevice::join(token, "agreement", &key).await?;
    let credential = device.credential().await?;

    let (mut sender, mut receiver) = connect(endpoint, pin, &key).await?.split();
    sender.send(&ClientMessage::Present { credential }).await?;
    let answer = receiver.next().await.context("the session was closed")??;
    ensure!(matches!(answer, ConnectorMessage::Admitted { .. }), "not admitted: {answer:?}");

    Ok((device.id.to_string(), Session { sender, receiver }))
}
