//! Writes frames into a connection's outbox. Deliveries and acks are encoded by hand, the rest by `amq-protocol`.

use amq_protocol::{
    frame::{AMQPFrame, WriteContext, gen_frame},
    protocol::AMQPClass,
};

use crate::{frame::FRAME_OVERHEAD, message::Message};

const FRAME_END: u8 = 0xCE;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const BASIC: u16 = 60;

/// Appends any method.
pub(crate) fn method(out: &mut Vec<u8>, channel: u16, class: AMQPClass) {
    let frame = AMQPFrame::Method(channel, class);
    let context = WriteContext::from(std::mem::take(out));
    *out = gen_frame(&frame)(context).expect("writing to memory cannot fail").into_inner().0;
}

/// Appends a heartbeat frame.
pub(crate) fn heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(&[8, 0, 0, 0, 0, 0, 0, FRAME_END]);
}

/// Opens a frame; [`close_frame`] fills in its size.
fn open_frame(out: &mut Vec<u8>, kind: u8, channel: u16) -> usize {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.len()
}

fn close_frame(out: &mut Vec<u8>, start: usize) {
    let size = (out.len() - start) as u32;
    out[start - 4..start].copy_from_slice(&size.to_be_bytes());
    out.push(FRAME_END);
}

fn number(out: &mut Vec<u8>, method: u16) {
    out.extend_from_slice(&BASIC.to_be_bytes());
    out.extend_from_slice(&method.to_be_bytes());
}

fn short_string(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// Appends `basic.ack` (confirm of a publish).
pub(crate) fn ack(out: &mut Vec<u8>, channel: u16, tag: u64, is_multiple: bool) {
    let start = open_frame(out, METHOD, channel);
    number(out, 80);
    out.extend_from_slice(&tag.to_be_bytes());
    out.push(u8::from(is_multiple));
    close_frame(out, start);
}

/// Appends `basic.nack` (a refused publish).
pub(crate) fn nack(out: &mut Vec<u8>, channel: u16, tag: u64) {
    let start = open_frame(out, METHOD, channel);
    number(out, 120);
    out.extend_from_slice(&tag.to_be_bytes());
    out.push(0);
    close_frame(out, start);
}

/// Appends `basic.deliver` with its content.
pub(crate) fn deliver(
    out: &mut Vec<u8>,
    channel: u16,
    consumer: &str,
    tag: u64,
    is_redelivered: bool,
    message: &Message,
    frame_max: usize,
) {
    let start = open_frame(out, METHOD, channel);
    number(out, 60);
    short_string(out, consumer);
    out.extend_from_slice(&tag.to_be_bytes());
    out.push(u8::from(is_redelivered));
    short_string(out, &message.exchange);
    short_string(out, &message.routing_key);
    close_frame(out, start);
    content(out, channel, message, frame_max);
}

/// Appends the header and body frames of a message; an empty body has none.
pub(crate) fn content(out: &mut Vec<u8>, channel: u16, message: &Message, frame_max: usize) {
    let start = open_frame(out, HEADER, channel);
    out.extend_from_slice(&BASIC.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(message.body.len() as u64).to_be_bytes());
    out.extend_from_slice(&message.properties);
    close_frame(out, start);
    for chunk in message.body.chunks(frame_max - FRAME_OVERHEAD) {
        let start = open_frame(out, BODY, channel);
        out.extend_from_slice(chunk);
        close_frame(out, start);
    }
}
