//! What the operator asks and orders over the control socket.

use keys::{NodeId, OnionAddress};
use remailer::Order;
use tokio::sync::oneshot;

use super::Driver;
use crate::control::{self, Answer};

impl Driver {
    /// Answers a question at once, and an order when the node has carried it out.
    pub(super) fn order_from_operator(
        &mut self,
        order: control::Order,
        to: oneshot::Sender<Answer>,
    ) {
        let order = match order {
            control::Order::Status => Err(Answer::Status(Box::new(self.status()))),
            control::Order::Peers => Err(Answer::Peers(self.peers())),
            control::Order::Vouch(onion) => node(&onion).map(Order::Vouch),
            control::Order::Unvouch(onion) => node(&onion).map(Order::Unvouch),
            control::Order::Ban(onion) => node(&onion).map(Order::Ban),
            control::Order::Unban(onion) => node(&onion).map(Order::Unban),
            control::Order::Invite => Ok(Order::Invite),
        };
        match order {
            Ok(order) => {
                let (id, now) = (self.asked.order(to), self.now());
                self.remailer.handle_order(id, order, now, &mut self.machine.rng);
            }
            // A caller that has hung up is told nothing.
            Err(answer) => drop(to.send(answer)),
        }
    }
}

fn node(onion: &str) -> Result<NodeId, Answer> {
    let onion = onion.parse::<OnionAddress>();
    let onion = onion.map_err(|_| Answer::Error("not an onion address".to_owned()))?;
    Ok(onion.node())
}
