//! The same server over stdin and stdout, one message a line.

use super::{
    Eras, Fault, Options,
    core::{Answer, Context, Core, Emit, VERSION_KEY},
    fault,
    parse::parse,
};
use serde_json::Value;
use std::{
    io::{self, BufRead as _, Write as _},
    sync::Arc,
};
use tokio::sync::mpsc;

/// Lines read and not yet handled; messages written and not yet flushed.
const LINES_MAX: usize = 64;

/// Serves this process's stdin and stdout until stdin ends.
///
/// # Errors
/// The runtime cannot be made, or the record file cannot be opened.
pub fn serve_stdio(options: Options) -> io::Result<()> {
    let core = Arc::new(Core::new(options)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let (lines, mut incoming) = mpsc::channel::<Vec<u8>>(LINES_MAX);
    // A thread, because a blocking read of stdin cannot be cancelled.
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match stdin.read_until(b'\n', &mut line) {
                Ok(1..) if lines.blocking_send(line).is_ok() => {}
                _ => return,
            }
        }
    });
    runtime.block_on(async {
        while let Some(line) = incoming.recv().await {
            handle(&core, &line);
            // Lets the tasks write before the next line is looked at.
            tokio::task::yield_now().await;
        }
    });
    Ok(())
}

fn handle(core: &Arc<Core>, line: &[u8]) {
    core.recorder.request("LINE", "", &[], line);
    let Some(message) = parse(core.options.parser, line) else {
        return write(&Answer::error(400, &Value::Null, -32700, "Parse error").body);
    };
    let messages = match message {
        Value::Array(messages) => messages,
        message => vec![message],
    };
    for message in messages {
        if message.get("method").is_none() || message.get("id").is_none() {
            core.take(&message, &core.common);
            continue;
        }
        let context = Context {
            modern: core.options.eras != Eras::Legacy
                && message
                    .pointer("/params/_meta")
                    .is_some_and(|meta| meta.get(VERSION_KEY).is_some()),
            session: core.common.clone(),
            headers: Arc::default(),
        };
        let id = message.get("id").cloned().unwrap_or_default();
        let working = core.clone();
        let task = tokio::spawn(async move { answer(&working, message, context).await });
        core.common.track(&id, task.abort_handle());
    }
}

async fn answer(core: &Core, message: Value, context: Context) {
    let (sender, mut notes) = mpsc::channel(LINES_MAX);
    let emit = Emit {
        sender: Some(sender),
        token: message.pointer("/params/_meta/progressToken").cloned(),
    };
    let mut work = std::pin::pin!(core.answer(&message, &context, &emit));
    let answer = loop {
        tokio::select! {
            biased;
            note = notes.recv() => write(&note),
            answer = &mut work => break answer,
        }
    };
    while let Ok(note) = notes.try_recv() {
        write(&Some(note));
    }
    match answer.fault {
        Some(fault) => broken(fault, &answer),
        None => write(&answer.body),
    }
}

fn write(message: &Option<Value>) {
    if let Some(message) = message {
        write_line(message.to_string().as_bytes());
    }
}

fn write_line(line: &[u8]) {
    let mut stdout = io::stdout().lock();
    // A closed pipe means that the client is gone: stdin will end as well.
    let _ = stdout
        .write_all(&[line, b"\n"].concat())
        .and_then(|()| stdout.flush());
}

fn broken(fault: Fault, answer: &Answer) {
    let body = answer.body.clone().unwrap_or_default();
    if let Some(text) = fault::edit(fault, &body) {
        return write_line(&text);
    }
    let text = body.to_string();
    let half = text.as_bytes().get(..text.len() / 2).unwrap_or_default();
    match fault {
        Fault::Die => std::process::exit(3),
        Fault::DieMidHead | Fault::DieMidBody | Fault::DieMidStream | Fault::Reset => {
            let mut stdout = io::stdout().lock();
            let _ = stdout.write_all(half).and_then(|()| stdout.flush());
            std::process::exit(3);
        }
        Fault::Noise => {
            for line in [
                "Loading the model: 12%",
                "",
                "[1] not an object",
                "{\"jsonrpc\":",
            ] {
                write_line(line.as_bytes());
            }
            eprintln!("and a line on stderr");
            write_line(text.as_bytes());
        }
        Fault::Flood | Fault::FloodLine => {
            let mut stdout = io::stdout().lock();
            while stdout.write_all(&[b'x'; 4096]).is_ok() {}
        }
        Fault::FloodEvents => loop {
            let note = br#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"again"}}"#;
            write_line(note);
        },
        Fault::Twice => {
            write_line(text.as_bytes());
            write_line(text.as_bytes());
        }
        // The rest is about HTTP: here it is silence.
        _ => {}
    }
}
