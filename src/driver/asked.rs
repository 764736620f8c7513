//! Callers that wait for an answer of the node: sessions, operators and peers. The node knows each
//! caller by a number only.

use std::collections::BTreeMap;

use libp2p::request_response::ResponseChannel;
use remailer::{OrderId, QuestionId, SubmissionId};
use tokio::sync::oneshot;

use crate::control;

/// The waiting callers. The node answers each input, so there is one for each open question.
#[derive(Default)]
pub(super) struct Asked {
    serial: u64,
    submissions: BTreeMap<SubmissionId, oneshot::Sender<smtp::Verdict>>,
    orders: BTreeMap<OrderId, oneshot::Sender<control::Response>>,
    invites: BTreeMap<QuestionId, ResponseChannel<Vec<u8>>>,
}

impl Asked {
    fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn submission(&mut self, to: oneshot::Sender<smtp::Verdict>) -> SubmissionId {
        let id = SubmissionId(self.number());
        self.submissions.insert(id, to);
        id
    }

    pub(super) fn order(&mut self, to: oneshot::Sender<control::Response>) -> OrderId {
        let id = OrderId(self.number());
        self.orders.insert(id, to);
        id
    }

    pub(super) fn invite(&mut self, to: ResponseChannel<Vec<u8>>) -> QuestionId {
        let id = QuestionId(self.number());
        self.invites.insert(id, to);
        id
    }

    /// Answers a session. A client that has disconnected gets no answer; its mail is on its way
    /// all the same.
    pub(super) fn answer_submission(&mut self, id: SubmissionId, answer: smtp::Verdict) {
        if let Some(to) = self.submissions.remove(&id) {
            let _ = to.send(answer);
        }
    }

    /// Answers an operator. A caller that has hung up gets no answer.
    pub(super) fn answer_order(&mut self, id: OrderId, answer: control::Response) {
        if let Some(to) = self.orders.remove(&id) {
            let _ = to.send(answer);
        }
    }

    /// The channel to a peer that showed an invite.
    pub(super) fn take_invite(&mut self, id: QuestionId) -> Option<ResponseChannel<Vec<u8>>> {
        self.invites.remove(&id)
    }
}
