//! All messages between the parts, with the version they were written in.
//!
//! ```text
//! dispatcher ── TaskMessage ──► piecework.tasks ──► agents
//! agents ── EventBatch ──► piecework.events ──► dispatcher      agents ── Heartbeat ──► piecework.heartbeats ──► dispatcher
//! dispatcher ── Control ──► piecework.control ──► agents        (answers: HeartbeatReply, FileReply, ... to reply_to)
//! agents, autoscaler ── Request ──► piecework.requests ──► dispatcher ── Reply ──► reply_to
//! ```
//! Bodies are MessagePack with named fields, or JSON. Unknown fields are ignored; a message whose `v`
//! is unknown is moved to `piecework.dead`, never dropped. Every event may safely be received twice.

mod control;
mod event;
mod heartbeat;
mod request;
mod task;

pub use crate::outcome::*;

pub use self::{control::*, event::*, heartbeat::*, request::*, task::*};

/// The version this build writes and reads.
pub const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{body::Format, ids::JobUid, outcome::JobTaskKind};
    use crate::{
        ids::{Epoch, Fence, RunId, TaskUid},
        outcome::{Fault, JobTaskEnd, JobTaskKey, Outcome, Stream, Usage},
        state::DeallocationOption,
        time::Timestamp,
    };

    #[test]
    fn the_end_of_a_job_task_survives_both_formats_also_inside_an_outcome() {
        let key = JobTaskKey { job: JobUid(3), kind: JobTaskKind::Preparation, number: 2 };
        let outcome = Outcome::Exit { code: 1 };
        let end = JobTaskEnd { key, started_at: Timestamp(1), ended_at: Timestamp(2), outcome, retries: 1, retried_at: Some(Timestamp(1)) };
        let event = AgentEvent::JobTask(Box::new(end.clone()));
        let outcome = Outcome::Unprepared(Box::new(end));
        for format in [Format::MessagePack, Format::Json] {
            assert_eq!(format.read::<AgentEvent>(&format.write(&event).unwrap()).unwrap(), event, "{format:?}");
            assert_eq!(format.read::<Outcome>(&format.write(&outcome).unwrap()).unwrap(), outcome, "{format:?}");
        }
        let order = ControlKind::Heartbeat;
        assert_eq!(Format::Json.write(&order).unwrap(), br#"{"control":"beat"}"#);
    }

    #[test]
    fn messages_survive_both_formats_and_unknown_fields_are_ignored() {
        let finished = AgentEvent::Finished(Box::new(Finished {
            uid: TaskUid(7),
            attempt: 1,
            fence: Fence(1 << 40),
            run: RunId::random(),
            started_at: Timestamp(1),
            ended_at: Timestamp(2),
            outcome: Outcome::Upload {
                code: Some(0),
                fault: Fault { code: "FileUploadMiscError".into(), message: "no".into(), details: vec![("a".into(), "b".into())] },
            },
            stdout: Stream::Inline { bytes: vec![0xff, 0, 1] },
            stderr: Stream::Empty,
            usage: Usage::default(),
        }));
        let batch =
            EventBatch { v: VERSION, pool: "p".parse().unwrap(), node: "n".parse().unwrap(), epoch: Epoch(3), events: vec![finished] };
        for format in [Format::MessagePack, Format::Json] {
            let bytes = format.write(&batch).unwrap();
            assert_eq!(format.read::<EventBatch>(&bytes).unwrap(), batch, "{format:?}");
        }
        let reply: HeartbeatReply =
            Format::Json.read(br#"{"v":1,"boot":1,"verdicts":[],"order":{"order":"drain","option":"requeue"},"extra":1}"#).unwrap();
        assert_eq!(reply.order, NodeOrder::Drain { option: DeallocationOption::Requeue });
        assert!(reply.releases.is_empty() && reply.over.is_empty(), "an older dispatcher has no chores");
        assert_eq!(reply.keep, None, "nor does it keep slots");
    }
}
