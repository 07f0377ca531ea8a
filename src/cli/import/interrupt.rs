//! SIGINT and SIGTERM end an import between two rows, so that it can still say what it took.
//!
//! Rows are read on a thread of their own, because a pipe or a terminal may never give another one; another thread waits for
//! the signals. A second signal ends the process at once: the database may be what hangs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    cli::{
        outcome::{Exit, Failure, tell},
        store_context::runtime,
    },
    ops::import::Rows,
    store::admin::{ImportRow, Stop},
};

/// Rows read ahead.
const AHEAD: usize = 64;
/// Longest that a signal waits for the next look.
const LOOK: Duration = Duration::from_millis(50);

struct UntilSignal {
    /// `None` behind the last one: a thread that ends without it was no end of the file.
    rows: Receiver<Option<Result<ImportRow, Stop>>>,
    signalled: Arc<AtomicBool>,
}

/// These rows, up to a signal.
pub(super) fn until_signal(rows: Rows<'static>) -> Result<impl Iterator<Item = Result<ImportRow, Stop>>, Failure> {
    let signalled = wait_for_signals()?;
    let (send, receive) = sync_channel(AHEAD);
    thread::Builder::new().name("import-rows".to_owned()).spawn(move || {
        for row in rows.map(Some).chain([None]) {
            // Nobody wants more of them.
            if send.send(row).is_err() {
                return;
            }
        }
    })?;
    Ok(UntilSignal { rows: receive, signalled }.fuse())
}

impl Iterator for UntilSignal {
    type Item = Result<ImportRow, Stop>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.signalled.load(Ordering::Relaxed) {
                return Some(Err(Stop::Interrupted));
            }
            match self.rows.recv_timeout(LOOK) {
                Ok(row) => return row,
                Err(RecvTimeoutError::Disconnected) => return Some(Err(Stop::ReadingEnded)),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// True from the first signal on.
fn wait_for_signals() -> Result<Arc<AtomicBool>, Failure> {
    let runtime = runtime()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let signalled = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&signalled);
    thread::Builder::new().name("import-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            either(&mut interrupt, &mut terminate).await;
            told.store(true, Ordering::Relaxed);
            either(&mut interrupt, &mut terminate).await;
            tell("error: interrupted twice: what was imported is in the audit record, row by row");
            std::process::exit(Exit::Failed as i32);
        });
    })?;
    Ok(signalled)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
