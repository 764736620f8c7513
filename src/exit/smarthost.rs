//! Conversations with an SMTP server: the next one of an exit, or a node that mail is submitted to.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use mail::Delivery;
use remailer::DeliveryOutcome;
use smtp::{Client, Offers, Outcome, Port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use super::ServerFault;
use crate::clock::Clock;

/// The name given in EHLO, the same for every exit.
const EHLO_NAME: &str = "fog.invalid";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The extensions that a server offers, if it takes mail from here.
pub(super) async fn offers(address: SocketAddr, clock: Clock) -> Result<Offers, ServerFault> {
    match converse(Client::probe(EHLO_NAME), address, clock).await.0 {
        Outcome::Probed(offers) => Ok(offers),
        Outcome::Barred(bar) => Err(ServerFault::of(bar)),
        Outcome::Delivered { .. } | Outcome::Refused | Outcome::RefusedHere | Outcome::Later => {
            Err(ServerFault::Silent)
        }
    }
}

/// One attempt to deliver.
pub(super) async fn deliver(
    address: SocketAddr,
    delivery: Delivery,
    clock: Clock,
) -> (DeliveryOutcome, Result<(), ServerFault>) {
    match converse(Client::deliver(EHLO_NAME, delivery), address, clock).await {
        (Outcome::Delivered { taken, refused, refused_here, later: 0 }, _) => {
            (DeliveryOutcome::Done { taken, refused, refused_here }, Ok(()))
        }
        // What is wrong is not the mail, which waits until it is mended.
        (Outcome::Barred(bar), Some(delivery)) => {
            (later(delivery, [0; 3]), Err(ServerFault::of(bar)))
        }
        (Outcome::Delivered { taken, refused, refused_here, .. }, Some(delivery)) => {
            (later(delivery, [taken, refused, refused_here]), Ok(()))
        }
        (Outcome::Later, Some(delivery)) => (later(delivery, [0; 3]), Ok(())),
        (Outcome::RefusedHere, Some(delivery)) => {
            let refused_here = delivery.recipients.len();
            (DeliveryOutcome::Done { taken: 0, refused: 0, refused_here }, Ok(()))
        }
        (_, delivery) => {
            let refused = delivery.map_or(0, |delivery| delivery.recipients.len());
            (DeliveryOutcome::Done { taken: 0, refused, refused_here: 0 }, Ok(()))
        }
    }
}

fn later(delivery: Delivery, came: [usize; 3]) -> DeliveryOutcome {
    let [taken, refused, refused_here] = came;
    DeliveryOutcome::Later { delivery, taken, refused, refused_here }
}

/// Hands a message to a node as a user's program does; returns its reply.
///
/// # Errors
/// The reply of a node that refuses the message; `None` if no node answers there.
pub async fn submit(
    delivery: Delivery,
    node: SocketAddr,
    clock: Clock,
) -> Result<String, Option<String>> {
    submit_on(delivery, TcpStream::connect(node), clock).await
}

/// Hands a message to a node over a connection that is still to be made; returns its reply.
///
/// # Errors
/// The reply of a node that refuses the message; `None` if no node answers there.
pub async fn submit_on(
    delivery: Delivery,
    connecting: impl Future<Output = io::Result<TcpStream>>,
    clock: Clock,
) -> Result<String, Option<String>> {
    let client = Client::submit(EHLO_NAME, delivery);
    let (outcome, _, reply) = talk(client, connecting, clock).await;
    match outcome {
        Outcome::Delivered { refused: 0, refused_here: 0, later: 0, .. } => Ok(reply),
        Outcome::Delivered { .. } => Err(Some(format!("not every recipient was taken; {reply}"))),
        Outcome::Probed(_)
        | Outcome::Refused
        | Outcome::RefusedHere
        | Outcome::Later
        | Outcome::Barred(_) => Err(Some(reply).filter(|reply| !reply.is_empty())),
    }
}

async fn converse(
    client: Client,
    address: SocketAddr,
    clock: Clock,
) -> (Outcome, Option<Delivery>) {
    let (outcome, delivery, _) = talk(client, TcpStream::connect(address), clock).await;
    (outcome, delivery)
}

/// Runs a conversation over a connection; also returns the reply that decided.
async fn talk(
    mut client: Client,
    connecting: impl Future<Output = io::Result<TcpStream>>,
    clock: Clock,
) -> (Outcome, Option<Delivery>, String) {
    let start = clock.elapsed();
    let now = || clock.elapsed().saturating_sub(start);
    if let Ok(Ok(mut stream)) = timeout(CONNECT_TIMEOUT, connecting).await {
        let mut octets = [0; 4096];
        while client.port() == Port::Open {
            let left = client.poll_timeout().saturating_sub(now());
            match timeout(left, stream.read(&mut octets)).await {
                Err(_) => client.handle_timeout(now()),
                Ok(Ok(read)) if read > 0 => {
                    client.handle_input(octets.get(..read).unwrap_or_default(), now());
                }
                Ok(_) => client.handle_lost(),
            }
            while let Some(output) = client.next_output() {
                let left = client.poll_timeout().saturating_sub(now());
                if !matches!(timeout(left, stream.write_all(&output)).await, Ok(Ok(()))) {
                    client.handle_lost();
                }
            }
        }
        let _ = stream.shutdown().await;
    } else {
        client.handle_lost();
    }
    let reply = client.decisive_reply().to_owned();
    let (outcome, delivery) = client.finish();
    (outcome, delivery, reply)
}
