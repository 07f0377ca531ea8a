//! One turn of the executor.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// Pending once, and ready at the next poll, which it asks for at once: all that is ready to run on this thread runs in
/// between.
#[derive(Default)]
pub(super) struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
