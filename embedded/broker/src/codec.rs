//! Converts payload bytes to the methods of `amq-protocol` and back. The depth of tables is checked before its recursive
//! parser runs; the three methods of the hot path are parsed by hand, because the generated parser allocates.

use amq_protocol::{
    frame::WriteContext,
    protocol::{AMQPClass, basic, parse_class},
    types::ShortString,
};

use crate::refusal::{Outcome, Refusal};

/// Deepest nesting of tables and arrays that is read.
const NESTING_MAX: usize = 32;
/// Longest short string of the protocol, in bytes.
const SHORT_STRING_MAX: usize = 255;

/// Class and method number of a method payload.
pub(crate) fn method_number(payload: &[u8]) -> Outcome<(u16, u16)> {
    match payload {
        [a, b, c, d, ..] => Ok((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))),
        _ => Err(Refusal::frame_error("method frame without a method")),
    }
}

/// Parses a method off the hot path.
pub(crate) fn parse_method(payload: &[u8]) -> Outcome<AMQPClass> {
    check_method_tables(payload)?;
    match parse_class(payload) {
        Ok(([], class)) => Ok(class),
        _ => Err(Refusal::syntax_error("method could not be read")),
    }
}

/// Parses the properties of a content header, which are everything after its body size.
pub(crate) fn parse_properties(bytes: &[u8]) -> Outcome<basic::AMQPProperties> {
    let mut cursor = Cursor(bytes);
    let flags = cursor.short()?;
    for bit in [15, 14] {
        if flags & (1 << bit) != 0 {
            cursor.short_string()?;
        }
    }
    if flags & (1 << 13) != 0 {
        check_nesting(cursor.0)?;
    }
    match basic::parse_properties(bytes) {
        Ok(([], properties)) => Ok(properties),
        _ => Err(Refusal::syntax_error("content properties could not be read")),
    }
}

/// Writes properties in the form of a content header.
pub(crate) fn write_properties(properties: &basic::AMQPProperties) -> Box<[u8]> {
    let context = WriteContext::from(Vec::new());
    basic::gen_properties(properties)(context).expect("writing to memory cannot fail").into_inner().0.into_boxed_slice()
}

/// A short string; text beyond its bound is cut.
pub(crate) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(SHORT_STRING_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::from(&text[..end])
}

/// Reads protocol fields off the front of a slice.
pub(crate) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, count: usize) -> Outcome<&'a [u8]> {
        if self.0.len() < count {
            return Err(Refusal::syntax_error("field runs past its frame"));
        }
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        Ok(head)
    }
    pub fn octet(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?[0])
    }
    pub fn short(&mut self) -> Outcome<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }
    pub fn long(&mut self) -> Outcome<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
    pub fn long_long(&mut self) -> Outcome<u64> {
        Ok((u64::from(self.long()?) << 32) | u64::from(self.long()?))
    }
    pub fn short_string(&mut self) -> Outcome<&'a str> {
        let length = usize::from(self.octet()?);
        std::str::from_utf8(self.take(length)?).map_err(|_| Refusal::syntax_error("short string is not UTF-8"))
    }

    /// Fails when bytes are left.
    fn end(&self) -> Outcome {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::syntax_error("method is longer than its fields")) }
    }
}

/// The position of tables in a method's fields: bytes to skip, short strings to skip, then flag bytes to skip.
fn table_position(class: u16, method: u16) -> Option<(usize, usize, usize)> {
    Some(match (class, method) {
        (10, 11) => (0, 0, 0),
        (40, 10) => (2, 2, 1),
        (40, 30) | (40, 40) => (2, 3, 1),
        (50, 10) => (2, 1, 1),
        (50, 20) => (2, 3, 1),
        (50, 50) => (2, 3, 0),
        (60, 20) => (2, 2, 1),
        _ => return None,
    })
}

fn check_method_tables(payload: &[u8]) -> Outcome {
    let (class, method) = method_number(payload)?;
    let Some((fixed, strings, flags)) = table_position(class, method) else { return Ok(()) };
    let mut cursor = Cursor(&payload[4..]);
    cursor.take(fixed)?;
    for _ in 0..strings {
        cursor.short_string()?;
    }
    cursor.take(flags)?;
    check_nesting(cursor.0)
}

/// Walks a table without recursion and refuses one that is nested too deeply or runs past its end.
fn check_nesting(bytes: &[u8]) -> Outcome {
    let mut open: Vec<(Cursor<'_>, bool)> = Vec::with_capacity(4);
    let mut outer = Cursor(bytes);
    let length = outer.long()? as usize;
    open.push((Cursor(outer.take(length)?), true));
    while let Some((cursor, is_table)) = open.last_mut() {
        if cursor.0.is_empty() {
            open.pop();
            continue;
        }
        if *is_table {
            let name = usize::from(cursor.octet()?);
            cursor.take(name)?;
        }
        let kind = cursor.octet()?;
        match kind {
            b't' | b'b' | b'B' => drop(cursor.take(1)?),
            b's' | b'U' | b'u' => drop(cursor.take(2)?),
            b'I' | b'i' | b'f' => drop(cursor.take(4)?),
            b'D' => drop(cursor.take(5)?),
            b'l' | b'L' | b'd' | b'T' => drop(cursor.take(8)?),
            b'V' => {}
            b'S' | b'x' => {
                let length = cursor.long()? as usize;
                cursor.take(length)?;
            }
            b'F' | b'A' => {
                let length = cursor.long()? as usize;
                let inner = Cursor(cursor.take(length)?);
                if open.len() >= NESTING_MAX {
                    return Err(Refusal::syntax_error("table is nested too deeply"));
                }
                open.push((inner, kind == b'F'));
            }
            other => {
                return Err(Refusal::syntax_error(format!("unknown field type {other}")));
            }
        }
    }
    Ok(())
}

/// The fields of `basic.publish`.
pub(crate) struct PublishFields<'a> {
    pub exchange: &'a str,
    pub routing_key: &'a str,
    pub mandatory: bool,
    pub immediate: bool,
}

/// Reads `basic.publish`.
pub(crate) fn parse_publish(payload: &[u8]) -> Outcome<PublishFields<'_>> {
    let mut cursor = Cursor(payload);
    cursor.take(6)?;
    let exchange = cursor.short_string()?;
    let routing_key = cursor.short_string()?;
    let flags = cursor.octet()?;
    cursor.end()?;
    Ok(PublishFields { exchange, routing_key, mandatory: flags & 1 != 0, immediate: flags & 2 != 0 })
}

/// Reads a delivery tag and the flags behind it: `basic.ack`, `basic.nack`, `basic.reject`.
pub(crate) fn parse_tag(payload: &[u8]) -> Outcome<(u64, u8)> {
    let mut cursor = Cursor(payload);
    cursor.take(4)?;
    let fields = (cursor.long_long()?, cursor.octet()?);
    cursor.end()?;
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_tables_are_refused() {
        let mut table = vec![0, 0, 0, 0];
        for _ in 0..200 {
            let mut outer = Vec::new();
            outer.extend(((table.len() + 3) as u32).to_be_bytes());
            outer.extend([1, b'k', b'F']);
            outer.extend(&table);
            table = outer;
        }
        assert_eq!(check_nesting(&table).unwrap_err().code, 502);
    }

    #[test]
    fn tables_that_lie_about_their_length_are_refused() {
        assert!(check_nesting(&[0, 0, 0, 9, 1, b'k', b'V']).is_err());
        assert!(check_nesting(&[0, 0, 0, 3, 1, b'k', b'V']).is_ok());
    }
}
