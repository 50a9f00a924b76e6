//! Parses server-sent events:
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>.

use std::collections::VecDeque;

/// Cuts a stream of bytes into events, however they arrive.
#[derive(Default)]
pub(super) struct EventParser {
    line: Vec<u8>,
    /// The last byte was a carriage return, so that a line feed now ends the same line.
    after_return: bool,
    after_first_line: bool,
    name: String,
    data: String,
    events: VecDeque<Event>,
}

/// One event with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: String,
}

/// A line or event is longer than [`MAX_LEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Longest line, and longest data of an event, in bytes. The control plane sends some tens.
const MAX_LEN: usize = 64 << 10;

/// How a stream may begin.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

impl EventParser {
    /// Takes what has arrived.
    pub(super) fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        for &byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    self.end_line()?;
                }
                _ => {
                    self.after_return = false;
                    if self.line.len() == MAX_LEN {
                        return Err(TooLong);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(())
    }

    /// The next whole event.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn end_line(&mut self) -> Result<(), TooLong> {
        let bytes = std::mem::take(&mut self.line);
        let mut line = bytes.as_slice();
        if !self.after_first_line {
            self.after_first_line = true;
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            self.end_event();
            return Ok(());
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
                if self.data.len() > MAX_LEN {
                    return Err(TooLong);
                }
            }
            // A comment has the empty name; the id repeats what the data says.
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self) {
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_some() {
            self.events.push_back(Event { name, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let mut parser = EventParser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.extend(chunk).unwrap();
            events.extend(std::iter::from_fn(|| parser.next_event()));
        }
        events
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn an_event_has_name_and_data() {
        let events = parse([b"id: 7\nevent: bundle\ndata: {\"sequence\":7}\n\n".as_slice()]);
        assert_eq!(events, [event("bundle", "{\"sequence\":7}")]);
    }

    #[test]
    fn comments_and_events_without_data_are_passed_over() {
        assert_eq!(parse([b": keepalive\n\nevent: bundle\nid: 1\n\nretry: 5\n\n".as_slice()]), []);
    }

    #[test]
    fn lines_of_data_are_joined() {
        assert_eq!(parse([b"data:a\ndata\ndata:  b\n\n".as_slice()]), [event("", "a\n\n b")]);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        assert_eq!(parse(["\u{feff}data:a\n\n".as_bytes()]), [event("", "a")]);
    }

    #[test]
    fn an_unfinished_event_is_not_given() {
        assert_eq!(parse([b"data: a\n".as_slice()]), []);
    }

    #[test]
    fn a_line_or_event_without_end_is_refused() {
        let mut parser = EventParser::default();
        assert_eq!(parser.extend(&vec![b'a'; MAX_LEN]), Ok(()));
        assert_eq!(parser.extend(b"a"), Err(TooLong));

        let mut parser = EventParser::default();
        assert_eq!(
            parser.extend("data:aaaaaaa\n".repeat(MAX_LEN / 8 + 1).as_bytes()),
            Err(TooLong)
        );
    }

    fn any_stream() -> impl Strategy<Value = (String, Vec<Event>)> {
        let line_end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
        let one = ("[a-z]{0,8}", "[ -~é]{1,20}", prop::bool::ANY, line_end);
        prop::collection::vec(one, 0..12).prop_map(|parts| {
            let mut text = String::new();
            let mut events = Vec::new();
            for (name, data, has_heartbeat, end) in parts {
                if has_heartbeat {
                    text.push_str(&format!(": keepalive{end}{end}"));
                }
                text.push_str(&format!("event: {name}{end}data: {data}{end}{end}"));
                events.push(Event { name, data });
            }
            (text, events)
        })
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_they_arrive(
            (text, expected) in any_stream(),
            chunk_len in 1_usize..40,
        ) {
            prop_assert_eq!(parse(text.as_bytes().chunks(chunk_len)), expected);
        }

        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut parser = EventParser::default();
            let _ignored = parser.extend(&bytes);
        }
    }
}
