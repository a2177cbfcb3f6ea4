//! A batch as the data of one entry of the log: a version byte, the head, the commands one after another.

use crate::pack;
use proto::{
    command::{Batch, COMMANDS_MAX, Command},
    limit::ledger::Session,
};

/// The layout of what follows it.
const VERSION: u8 = 1;

/// A command in bytes, so that its size is known before it is proposed. `None`: it cannot be encoded.
pub(crate) fn encode_command(command: &Command) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64);
    pack::put(command, &mut bytes).then_some(bytes)
}

/// An entry's data from commands that are encoded already, one after another.
pub(crate) fn encode(now_ms: u64, rules_version: u32, count: usize, commands: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(commands.len() + 16);
    bytes.push(VERSION);
    // Three integers are always encodable.
    let _ = pack::put(&(now_ms, rules_version, count as u32), &mut bytes);
    bytes.extend_from_slice(commands);
    bytes
}

/// The rules that a batch wants and the batch; `Err` with the rules if the rest cannot be read by this build.
pub(crate) fn decode(data: &[u8]) -> Result<Batch, Undecodable> {
    let damaged = Undecodable { rules_version: None };
    let (version, mut rest) = data.split_first().ok_or(damaged)?;
    if *version != VERSION {
        return Err(damaged);
    }
    let (now_ms, rules_version, count): (u64, u32, u32) = pack::take(&mut rest).ok_or(damaged)?;
    let unreadable = Undecodable {
        rules_version: Some(rules_version),
    };
    if count as usize > COMMANDS_MAX {
        return Err(unreadable);
    }
    let mut commands = Vec::with_capacity(count as usize);
    for _ in 0..count {
        commands.push(pack::take(&mut rest).ok_or(unreadable)?);
    }
    if !rest.is_empty() {
        return Err(unreadable);
    }
    Ok(Batch {
        now_ms,
        rules_version,
        commands,
    })
}

/// An entry that is no batch of this build's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undecodable {
    /// The rules that it is written by, where that much can be read.
    pub(crate) rules_version: Option<u32>,
}

/// Whose session a command speaks for.
pub(crate) fn session(command: &Command) -> Option<Session> {
    match command {
        Command::Define { session, .. }
        | Command::Lease { session, .. }
        | Command::Return { session, .. }
        | Command::Bye { session } => Some(*session),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{
        command::NodeId,
        limit::{CounterKey, Identity, lease::Ask},
    };

    fn batch() -> Batch {
        let ask = Ask {
            identity: Identity(1),
            key: CounterKey(2),
            window_hint: 300,
            want: 4,
            min: 1,
            seen_granted: 70_000,
            returned_total: 0,
            group: None,
            waiting: true,
        };
        Batch {
            now_ms: 1_800_000_000_000,
            rules_version: 1,
            commands: vec![
                Command::Hello {
                    node: NodeId(9),
                    nonce: 3,
                    secret_check: 4,
                    rules_max: 1,
                },
                Command::Lease {
                    session: Session(5),
                    ask,
                },
                Command::Bye {
                    session: Session(5),
                },
            ],
        }
    }

    fn bytes(batch: &Batch) -> Vec<u8> {
        let commands: Vec<u8> = batch.commands.iter().flat_map(|c| encode_command(c).unwrap()).collect();
        encode(batch.now_ms, batch.rules_version, batch.commands.len(), &commands)
    }

    #[test]
    fn a_batch_is_read_as_it_was_written() {
        assert_eq!(decode(&bytes(&batch())), Ok(batch()));
    }

    /// Logs on disks hold these bytes: they never change, a new layout gets a new version.
    #[test]
    fn the_bytes_of_version_1_are_golden() {
        let hex: String = bytes(&batch()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }
    const GOLDEN: &str = "";

    #[test]
    fn cut_and_foreign_bytes_are_refused() {
        let whole = bytes(&batch());
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut]).is_err(), "{cut}");
        }
        let more = [&whole[..], &[0]].concat();
        assert_eq!(decode(&more), Err(Undecodable { rules_version: Some(1) }));
        assert_eq!(decode(&[2, 0, 0, 0]), Err(Undecodable { rules_version: None }));
        assert!(decode(&[1, 0, 1, 0xfc, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
