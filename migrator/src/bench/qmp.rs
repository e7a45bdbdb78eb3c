//! The smallest client of QEMU's machine protocol (QMP): commands, their answers, and events, one JSON object a line.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use migrator::clock;
use serde_json::{Value, json};
use thiserror::Error;

/// Bytes of a line.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// Events that nobody has asked for yet.
const EVENTS_MAX: usize = 10_000;

/// Why a command gave nothing.
#[derive(Debug, Error)]
pub enum QmpError {
    /// The socket failed.
    #[error("the QMP socket failed")]
    Io(#[from] io::Error),
    /// QEMU has closed it.
    #[error("QEMU closed the QMP socket")]
    Closed,
    /// Nothing came in time.
    #[error("no answer in {0:?}")]
    Late(Duration),
    /// Not what QMP says.
    #[error("not QMP: {0:?}")]
    Malformed(String),
    /// QEMU refused.
    #[error("{command}: {message}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's reason.
        message: String,
    },
    /// The migration ended otherwise.
    #[error("the migration ended as {0:?}")]
    Ended(String),
}

/// A connection.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    line: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects and agrees on capabilities: none.
    ///
    /// # Errors
    /// Nobody listens, or it does not speak QMP.
    pub fn connect(socket: &Path) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(socket)?;
        let mut qmp = Self { reader: BufReader::new(stream), line: Vec::new(), events: VecDeque::new() };
        let greeting = qmp.read(ANSWER)?;
        if greeting["QMP"].is_null() {
            return Err(QmpError::Malformed(greeting.to_string().chars().take(200).collect()));
        }
        qmp.execute("qmp_capabilities", &Value::Null)?;
        Ok(qmp)
    }

    /// Runs a command; `Value::Null` for no arguments. Events on the way are kept.
    ///
    /// # Errors
    /// QEMU's own, or the connection's.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments.clone();
        }
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let begin = clock::now();
        loop {
            let mut answer = self.read(ANSWER.saturating_sub(begin.elapsed()))?;
            if !answer["event"].is_null() {
                self.keep(answer);
            } else if !answer["error"].is_null() {
                let message = answer["error"]["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), message });
            } else if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            } else {
                return Err(QmpError::Malformed(answer.to_string().chars().take(200).collect()));
            }
        }
    }

    fn keep(&mut self, event: Value) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Waits for the next event that `wanted` takes; earlier ones are dropped.
    ///
    /// # Errors
    /// None came in `limit`, or the connection failed.
    pub fn event<T>(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, QmpError> {
        let begin = clock::now();
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.read(limit.saturating_sub(begin.elapsed()))?,
            };
            if let Some(found) = wanted(&event) {
                return Ok(found);
            }
        }
    }

    /// Waits until a migration out of here is complete.
    ///
    /// # Errors
    /// It failed, or did not end in `limit`.
    pub fn migrated(&mut self, limit: Duration) -> Result<(), QmpError> {
        let status = self.event(limit, |event| {
            let status = event["data"]["status"].as_str().filter(|_| event["event"] == "MIGRATION")?;
            matches!(status, "completed" | "failed" | "cancelled").then(|| status.to_owned())
        })?;
        if status == "completed" { Ok(()) } else { Err(QmpError::Ended(status)) }
    }

    fn read(&mut self, limit: Duration) -> Result<Value, QmpError> {
        let begin = clock::now();
        loop {
            let left = limit.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Err(QmpError::Late(limit));
            }
            self.reader.get_ref().set_read_timeout(Some(left))?;
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len() as u64);
            match (&mut self.reader).take(room).read_until(b'\n', &mut self.line) {
                Ok(0) if room == 0 => return Err(QmpError::Malformed("a line without end".to_owned())),
                Ok(0) => return Err(QmpError::Closed),
                Ok(_) if self.line.ends_with(b"\n") => {
                    let line = std::mem::take(&mut self.line);
                    let shown = || String::from_utf8_lossy(&line).chars().take(200).collect();
                    return serde_json::from_slice(&line).map_err(|_| QmpError::Malformed(shown()));
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;
    const YES: &str = r#"{"return": {}}"#;

    /// A QEMU that says `script[0]` first, and `script[n]` when it has been told the n-th thing.
    fn scripted(script: &[&str]) -> (tempfile::TempDir, JoinHandle<Vec<Value>>) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("qmp")).unwrap();
        let script: Vec<_> = script.iter().map(|text| format!("{text}\r\n")).collect();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut told = Vec::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for (number, text) in script.iter().enumerate() {
                if number > 0 {
                    let Some(Ok(line)) = lines.next() else { break };
                    told.push(serde_json::from_str(&line).unwrap());
                }
                stream.write_all(text.as_bytes()).unwrap();
            }
            told
        });
        (directory, thread)
    }

    #[test]
    fn commands_answers_and_events_in_any_order() {
        let events =
            "{\"event\": \"RESUME\"}\r\n{\"event\": \"MIGRATION\", \"data\": {\"status\": \"active\"}}";
        let done = r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#;
        let answer = format!("{events}\r\n{{\"return\": {{\"major\": 7}}}}\r\n{done}");
        let (directory, thread) = scripted(&[GREETING, YES, &answer]);
        let mut qmp = Qmp::connect(&directory.path().join("qmp")).unwrap();
        let version = qmp.execute("query-version", &json!({ "a": 1 })).unwrap();
        assert_eq!(version["major"], 7);
        qmp.migrated(Duration::from_secs(10)).unwrap();
        let told = thread.join().unwrap();
        assert_eq!(told[0], json!({ "execute": "qmp_capabilities" }));
        assert_eq!(told[1], json!({ "execute": "query-version", "arguments": { "a": 1 } }));
        assert!(matches!(qmp.execute("stop", &Value::Null), Err(QmpError::Closed | QmpError::Io(_))));
    }

    #[test]
    fn refusals_failures_and_nonsense_are_errors() {
        let refusal = r#"{"error": {"class": "GenericError", "desc": "no such thing"}}"#;
        let failed = r#"{"event": "MIGRATION", "data": {"status": "failed"}}"#;
        let (directory, thread) = scripted(&[GREETING, YES, refusal, &format!("{YES}\n{failed}"), "{}"]);
        let mut qmp = Qmp::connect(&directory.path().join("qmp")).unwrap();
        let error = qmp.execute("fly", &Value::Null).unwrap_err();
        assert_eq!(error.to_string(), "fly: no such thing");
        qmp.execute("migrate", &Value::Null).unwrap();
        assert!(matches!(qmp.migrated(Duration::from_secs(10)), Err(QmpError::Ended(_))));
        assert!(matches!(qmp.execute("x", &Value::Null), Err(QmpError::Malformed(_))));
        thread.join().unwrap();
        let (directory, _thread) = scripted(&["{\"hello\": 1}"]);
        assert!(matches!(Qmp::connect(&directory.path().join("qmp")), Err(QmpError::Malformed(_))));
    }

    #[test]
    fn an_event_that_does_not_come_is_not_waited_for_longer_than_allowed() {
        let (directory, _thread) = scripted(&[GREETING, YES, YES]);
        let mut qmp = Qmp::connect(&directory.path().join("qmp")).unwrap();
        assert!(matches!(qmp.event(Duration::from_millis(20), |_| Some(())), Err(QmpError::Late(_))));
    }
}
