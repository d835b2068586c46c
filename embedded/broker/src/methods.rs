//! Parses frames and calls the handler of each method. A refusal closes its channel, or the connection.

use amq_protocol::protocol::{AMQPClass, access, basic, channel, confirm, connection};

use crate::{
    channel::{Channel, Incoming},
    codec::{method_number, parse_method, parse_publish, parse_tag, short},
    confirms::Confirms,
    connection::Phase,
    content::read_header,
    core::Core,
    frame::{Frame, Kind, next_frame},
    ids::{ChannelId, ConnectionId},
    permissions::Right,
    refusal::{Outcome, Refusal},
};

/// Memory reserved for a body before its bytes arrive, at most.
const BODY_RESERVE_BYTES: u64 = 64 << 10;

impl Core {
    /// Handles all whole frames of `input`; returns the bytes used.
    pub(crate) fn on_bytes(&mut self, id: ConnectionId, input: &[u8]) -> usize {
        let mut used = 0;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.last_read = std::time::Instant::now();
        }
        loop {
            let Some(connection) = self.connections.get_mut(id) else { return input.len() };
            match connection.phase {
                Phase::Header => {
                    let taken = self.on_protocol_header(id, &input[used..]);
                    used += taken;
                    if taken == 0 {
                        return used;
                    }
                    continue;
                }
                Phase::Gone => return input.len(),
                _ => {}
            }
            let frame_max = connection.frame_max;
            match next_frame(&input[used..], frame_max) {
                Ok(None) => return used,
                Ok(Some((frame, total))) => {
                    used += total;
                    if let Err((refusal, method)) = self.on_frame(id, &frame) {
                        self.refuse(id, frame.channel, refusal, method);
                    }
                }
                Err(refusal) => {
                    self.refuse(id, 0, refusal, (0, 0));
                    return input.len();
                }
            }
        }
    }

    fn on_frame(&mut self, id: ConnectionId, frame: &Frame<'_>) -> Result<(), (Refusal, (u16, u16))> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        if connection.phase == Phase::Closing {
            if frame.kind == Kind::Method && matches!(method_number(frame.payload), Ok((10, 50 | 51))) {
                connection.enter(Phase::Gone);
                connection.wake.notify_one();
            }
            return Ok(());
        }
        match frame.kind {
            Kind::Heartbeat if frame.channel == 0 => Ok(()),
            Kind::Heartbeat => Err((Refusal::frame_error("heartbeat outside channel 0"), (0, 0))),
            Kind::Header | Kind::Body if frame.channel == 0 => Err((Refusal::unexpected_frame("content on channel 0"), (0, 0))),
            Kind::Header => self.on_header(id, frame).map_err(|refusal| (refusal, (60, 40))),
            Kind::Body => self.on_body(id, frame).map_err(|refusal| (refusal, (60, 40))),
            Kind::Method => {
                let number = method_number(frame.payload).map_err(|refusal| (refusal, (0, 0)))?;
                self.on_method(id, frame, number).map_err(|refusal| (refusal, number))
            }
        }
    }

    fn on_method(&mut self, id: ConnectionId, frame: &Frame<'_>, number: (u16, u16)) -> Outcome {
        if frame.channel == 0 {
            return self.on_connection_method(id, parse_method(frame.payload)?);
        }
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        if connection.phase != Phase::Open {
            return Err(Refusal::command_invalid("the connection is not open yet"));
        }
        let Some(state) = connection.channels.get_mut(&frame.channel) else {
            return self.on_unopened(id, frame, number);
        };
        if state.is_closing {
            match number {
                (20, 41) => drop(connection.channels.remove(&frame.channel)),
                // Both sides closed at the same time: this answers the client's close, the server's own still waits for an answer.
                (20, 40) => self.send(id, frame.channel, AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}))),
                _ => {}
            }
            return Ok(());
        }
        if state.incoming.is_some() {
            return Err(Refusal::unexpected_frame("method where content was expected"));
        }
        match number {
            (60, 40) => self.on_publish(id, frame.channel, frame.payload),
            (60, 80) => {
                let (tag, flags) = parse_tag(frame.payload)?;
                self.on_ack(id, frame.channel, tag, flags & 1 != 0)
            }
            (60, 90) => {
                let (tag, flags) = parse_tag(frame.payload)?;
                self.on_reject(id, frame.channel, tag, flags & 1 != 0)
            }
            (60, 120) => {
                let (tag, flags) = parse_tag(frame.payload)?;
                self.on_nack(id, frame.channel, tag, flags & 1 != 0, flags & 2 != 0)
            }
            // The codec drops the prefetch size; accepting one would promise a limit that is not applied.
            (60, 10) if frame.payload.get(4..8).is_some_and(|size| size != [0; 4]) => Err(Refusal::not_implemented("prefetch_size!=0")),
            _ => self.on_channel_method(id, frame.channel, parse_method(frame.payload)?),
        }
    }

    fn on_unopened(&mut self, id: ConnectionId, frame: &Frame<'_>, number: (u16, u16)) -> Outcome {
        match number {
            (20, 10) => {
                let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
                if frame.channel > connection.channel_max {
                    return Err(Refusal::not_allowed(format!(
                        "channel {} is above the negotiated channel_max {}",
                        frame.channel, connection.channel_max
                    )));
                }
                connection.incarnations += 1;
                let state = Channel { incarnation: connection.incarnations, ..Channel::default() };
                connection.channels.insert(frame.channel, state);
                let ok = channel::AMQPMethod::OpenOk(channel::OpenOk {});
                self.send(id, frame.channel, AMQPClass::Channel(ok));
                Ok(())
            }
            // A late answer to the server's close.
            (20, 41) => Ok(()),
            _ => Err(Refusal::channel_error(format!("channel {} is not open", frame.channel))),
        }
    }

    fn on_connection_method(&mut self, id: ConnectionId, class: AMQPClass) -> Outcome {
        use connection::AMQPMethod as Method;
        let AMQPClass::Connection(method) = class else {
            return Err(Refusal::command_invalid("only connection methods go on channel 0"));
        };
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        match (connection.phase, method) {
            (Phase::Login, Method::StartOk(ok)) => self.on_start_ok(id, &ok),
            (Phase::Tuning, Method::TuneOk(ok)) => self.on_tune_ok(id, &ok),
            (Phase::Opening, Method::Open(open)) => self.on_connection_open(id, open.virtual_host.as_str()),
            (_, Method::Close(_)) => {
                connection.enter(Phase::Gone);
                let ok = Method::CloseOk(connection::CloseOk {});
                self.send(id, 0, AMQPClass::Connection(ok));
                Ok(())
            }
            (Phase::Open, Method::UpdateSecret(_)) => {
                let ok = Method::UpdateSecretOk(connection::UpdateSecretOk {});
                self.send(id, 0, AMQPClass::Connection(ok));
                Ok(())
            }
            (Phase::Open, Method::Blocked(_) | Method::Unblocked(_)) => Ok(()),
            _ => Err(Refusal::command_invalid("connection method out of turn")),
        }
    }

    fn on_channel_method(&mut self, id: ConnectionId, number: ChannelId, class: AMQPClass) -> Outcome {
        match class {
            AMQPClass::Basic(method) => self.on_basic(id, number, method),
            AMQPClass::Queue(method) => self.on_queue_method(id, number, method),
            AMQPClass::Exchange(method) => self.on_exchange_method(id, number, method),
            AMQPClass::Channel(method) => self.on_channel_class(id, number, method),
            AMQPClass::Confirm(confirm::AMQPMethod::Select(select)) => {
                let state = self.connections.channel_mut(id, number)?;
                state.confirms.get_or_insert_with(Confirms::default);
                if !select.nowait {
                    let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
                    self.send(id, number, AMQPClass::Confirm(ok));
                }
                Ok(())
            }
            AMQPClass::Access(access::AMQPMethod::Request(_)) => {
                let ok = access::AMQPMethod::RequestOk(access::RequestOk {});
                self.send(id, number, AMQPClass::Access(ok));
                Ok(())
            }
            AMQPClass::Tx(_) => Err(Refusal::not_implemented("transactions are not supported")),
            _ => Err(Refusal::command_invalid("method that a client does not send here")),
        }
    }

    fn on_channel_class(&mut self, id: ConnectionId, number: ChannelId, method: channel::AMQPMethod) -> Outcome {
        use channel::AMQPMethod as Method;
        let reply = match method {
            Method::Open(_) => {
                return Err(Refusal::channel_error(format!("channel {number} is already open")));
            }
            Method::Close(_) => {
                self.forget_channel(id, number);
                Method::CloseOk(channel::CloseOk {})
            }
            Method::Flow(flow) => {
                self.connections.channel_mut(id, number)?.is_paused = !flow.active;
                if flow.active {
                    self.wake_channel(id, number);
                }
                Method::FlowOk(channel::FlowOk { active: flow.active })
            }
            Method::FlowOk(_) => return Ok(()),
            _ => return Err(Refusal::command_invalid("channel method out of turn")),
        };
        self.send(id, number, AMQPClass::Channel(reply));
        Ok(())
    }

    fn on_basic(&mut self, id: ConnectionId, number: ChannelId, method: basic::AMQPMethod) -> Outcome {
        use basic::AMQPMethod as Method;
        match method {
            Method::Qos(qos) => {
                let state = self.connections.channel_mut(id, number)?;
                if qos.global {
                    state.prefetch_total = qos.prefetch_count;
                } else {
                    state.prefetch = qos.prefetch_count;
                }
                let ok = Method::QosOk(basic::QosOk {});
                self.send(id, number, AMQPClass::Basic(ok));
                if qos.global {
                    self.wake_channel(id, number);
                }
                Ok(())
            }
            Method::Consume(consume) => self.on_consume(id, number, consume),
            Method::Cancel(cancel) => self.on_cancel(id, number, cancel),
            Method::CancelOk(_) => Ok(()),
            Method::Get(get) => self.on_get(id, number, get.queue.as_str(), get.no_ack),
            Method::RecoverAsync(recover) => self.on_recover(id, number, recover.requeue),
            Method::Recover(recover) => {
                self.on_recover(id, number, recover.requeue)?;
                let ok = Method::RecoverOk(basic::RecoverOk {});
                self.send(id, number, AMQPClass::Basic(ok));
                Ok(())
            }
            _ => Err(Refusal::command_invalid("basic method that only a server sends")),
        }
    }

    fn on_publish(&mut self, id: ConnectionId, number: ChannelId, payload: &[u8]) -> Outcome {
        let fields = parse_publish(payload)?;
        if fields.immediate {
            return Err(Refusal::not_implemented("immediate=true"));
        }
        self.check_exchange(id, Right::Write, fields.exchange)?;
        let exchange = self.intern_exchange(fields.exchange)?;
        self.check_key(id, Right::Write, fields.exchange, fields.routing_key)?;
        // A queue's messages share its name as their key.
        let routing_key = match self.queue_names.get_key_value(fields.routing_key) {
            Some((name, _)) => name.clone(),
            None => fields.routing_key.into(),
        };
        let incoming = Incoming { exchange, routing_key, is_mandatory: fields.mandatory, header: None, body: Vec::new() };
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let was_publisher = std::mem::replace(&mut connection.is_publisher, true);
        if let Some(state) = connection.channels.get_mut(&number) {
            state.incoming = Some(incoming);
        }
        if !was_publisher {
            self.send_alarm(id);
        }
        Ok(())
    }

    fn on_header(&mut self, id: ConnectionId, frame: &Frame<'_>) -> Outcome {
        let most = self.settings.message_max_bytes;
        let user = self.connections.get_mut(id).and_then(|connection| connection.user.clone());
        let state = self.connections.channel_mut(id, frame.channel)?;
        if state.is_closing {
            return Ok(());
        }
        let Some(incoming) = state.incoming.as_mut().filter(|incoming| incoming.header.is_none()) else {
            return Err(Refusal::unexpected_frame("content header without a publish"));
        };
        let header = read_header(frame.payload, user.as_ref().map_or("", |user| &user.name))?;
        if header.body_bytes > most {
            return Err(Refusal::precondition_failed(format!(
                "message size {} is larger than configured max size {most}",
                header.body_bytes
            )));
        }
        let is_whole = header.body_bytes == 0;
        incoming.body = Vec::with_capacity(header.body_bytes.min(BODY_RESERVE_BYTES) as usize);
        incoming.header = Some(header);
        if is_whole { self.on_content(id, frame.channel) } else { Ok(()) }
    }

    fn on_body(&mut self, id: ConnectionId, frame: &Frame<'_>) -> Outcome {
        let state = self.connections.channel_mut(id, frame.channel)?;
        if state.is_closing {
            return Ok(());
        }
        let Some((incoming, wanted)) = state
            .incoming
            .as_mut()
            .and_then(|incoming| incoming.header.as_ref().map(|header| header.body_bytes).map(|wanted| (incoming, wanted)))
        else {
            return Err(Refusal::unexpected_frame("content body without a header"));
        };
        let received = (incoming.body.len() + frame.payload.len()) as u64;
        if received > wanted {
            return Err(Refusal::frame_error("content body is longer than its header says"));
        }
        incoming.body.extend_from_slice(frame.payload);
        if received == wanted { self.on_content(id, frame.channel) } else { Ok(()) }
    }

    /// Closes a channel or the connection with the protocol's error code.
    pub(crate) fn refuse(&mut self, id: ConnectionId, number: ChannelId, refusal: Refusal, (class_id, method_id): (u16, u16)) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let closes_connection = refusal.closes_connection() || number == 0 || connection.phase != Phase::Open;
        tracing::debug!(code = refusal.code, text = refusal.text, "refused a client's request and closed its channel or connection");
        if closes_connection {
            connection.enter(Phase::Closing);
            let close = connection::Close { reply_code: refusal.code, reply_text: short(&refusal.text), class_id, method_id };
            self.send(id, 0, AMQPClass::Connection(connection::AMQPMethod::Close(close)));
            return;
        }
        let Some(state) = connection.channels.get_mut(&number) else { return };
        let incarnation = state.incarnation;
        let held = std::mem::replace(state, Channel { incarnation, is_closing: true, ..Channel::default() });
        let close = channel::Close { reply_code: refusal.code, reply_text: short(&refusal.text), class_id, method_id };
        self.send(id, number, AMQPClass::Channel(channel::AMQPMethod::Close(close)));
        self.release_channel(id, number, held);
    }
}
