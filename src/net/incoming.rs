//! Streams that arrive at a node: on a listener of its own, or sorted by the port of its onion
//! service.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::places::Seat;

/// A stream that has arrived, with its place among the streams of its circuit if that is known.
pub struct Arrived {
    stream: TcpStream,
    _places: Option<[OwnedSemaphorePermit; 2]>,
    /// Its place among those that have not read so many octets yet.
    seat: Option<(Seat, u64)>,
}

impl Arrived {
    /// A stream that keeps its places until it is dropped.
    pub(super) fn with_places(stream: TcpStream, places: [OwnedSemaphorePermit; 2]) -> Self {
        Self { stream, _places: Some(places), seat: None }
    }

    /// A stream that holds a place until so many octets have been read from it. It ends if it has
    /// to go before.
    pub(super) fn until(self, seat: Seat, octets: u64) -> Self {
        Self { seat: Some((seat, octets)), ..self }
    }
}

impl From<TcpStream> for Arrived {
    fn from(stream: TcpStream) -> Self {
        Self { stream, _places: None, seat: None }
    }
}

/// Where streams arrive.
pub enum Incoming {
    /// A listener for this purpose alone.
    Socket(TcpListener),
    /// A shared listener, which sorts the streams.
    Sorted(mpsc::Receiver<Arrived>),
}

impl Incoming {
    /// The next stream.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arrived>> {
        match self {
            Self::Socket(listener) => {
                let accepted = std::task::ready!(listener.poll_accept(cx));
                Poll::Ready(accepted.and_then(|(stream, _)| {
                    stream.set_nodelay(true)?;
                    Ok(stream.into())
                }))
            }
            Self::Sorted(streams) => match std::task::ready!(streams.poll_recv(cx)) {
                Some(stream) => Poll::Ready(Ok(stream)),
                // The sorter ends only with the runtime.
                None => Poll::Pending,
            },
        }
    }

    /// The next stream. Dropping this future loses no stream.
    ///
    /// # Errors
    /// Those of accepting a connection.
    pub async fn accept(&mut self) -> io::Result<Arrived> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }
}

impl AsyncRead for Arrived {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some((seat, most)) = &this.seat else {
            return Pin::new(&mut this.stream).poll_read(cx, into);
        };
        if seat.poll_ended(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = into.filled().len();
        let read = std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, into));
        seat.add(u64::try_from(into.filled().len() - before).unwrap_or(u64::MAX));
        if seat.useful() >= *most {
            this.seat = None;
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Arrived {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, octets)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
