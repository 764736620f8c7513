//! Questions and orders of the operator over the control socket.

use std::time::Duration;

use keys::{NodeId, OnionAddress};
use remailer::OperatorOrder;
use tokio::sync::oneshot;

use super::Driver;
use crate::control::{ControlOrder, Response};

impl Driver {
    /// Answers a question at once, and an order when the node has carried it out.
    pub(super) fn order_from_operator(
        &mut self,
        order: ControlOrder,
        to: oneshot::Sender<Response>,
    ) {
        let order = match order {
            ControlOrder::Status => Err(Response::Status(Box::new(self.status()))),
            ControlOrder::Drain(limit) => {
                Ok(OperatorOrder::Leave(limit.map(Duration::from_millis)))
            }
            ControlOrder::Stay => Ok(OperatorOrder::Stay),
            ControlOrder::Peers => Err(Response::Peers(self.peers())),
            ControlOrder::Queue => Err(Response::Queue(self.queue())),
            ControlOrder::Message(name) => Err(self.message(&name)),
            ControlOrder::Vouch(onion) => node(&onion).map(OperatorOrder::Vouch),
            ControlOrder::Unvouch(onion) => node(&onion).map(OperatorOrder::Unvouch),
            ControlOrder::Retire(onion) => node(&onion).map(OperatorOrder::Retire),
            ControlOrder::Ban(onion) => node(&onion).map(OperatorOrder::Ban),
            ControlOrder::Unban(onion) => node(&onion).map(OperatorOrder::Unban),
            ControlOrder::Invite => Ok(OperatorOrder::Invite),
        };
        match order {
            Ok(order) => {
                let (id, now) = (self.asked.order(to), self.now());
                self.remailer.handle_order(id, order, now, &mut self.machine.rng);
            }
            // A caller that has hung up gets no answer.
            Err(answer) => drop(to.send(answer)),
        }
    }
}

fn node(onion: &str) -> Result<NodeId, Response> {
    let onion = onion.parse::<OnionAddress>();
    let onion = onion.map_err(|_| Response::Error("not an onion address".to_owned()))?;
    Ok(onion.node())
}
