//! A relay between client and broker that can cut, stall and restore connections.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Open,
    /// Bytes are read and never forwarded.
    Stalled,
    /// Connections are closed, and new ones are refused.
    Cut,
}

pub struct Relay {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    task: JoinHandle<()>,
}

impl Relay {
    pub async fn start(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mood = watch::Sender::new(Mood::Open);
        let task = tokio::spawn(accept(listener, target, mood.clone()));
        Relay { address, mood, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections and refuses new ones.
    pub fn cut(&self) {
        self.mood.send_replace(Mood::Cut);
    }

    /// Keeps all connections and forwards nothing.
    pub fn stall(&self) {
        self.mood.send_replace(Mood::Stalled);
    }

    pub fn heal(&self) {
        self.mood.send_replace(Mood::Open);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.mood.send_replace(Mood::Cut);
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, mood: watch::Sender<Mood>) {
    while let Ok((client, _)) = listener.accept().await {
        if *mood.borrow() == Mood::Cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(target).await else { continue };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let mut cut = mood.subscribe();
        let (up, down) = (pass(from_client, to_server, mood.subscribe()), pass(from_server, to_client, mood.subscribe()));
        tokio::spawn(async move {
            tokio::select! {
                () = up => {}
                () = down => {}
                _ = cut.wait_for(|mood| *mood == Mood::Cut) => {}
            }
        });
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mood: watch::Receiver<Mood>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // The bytes that a stalled relay holds are lost with its connection, as in a half-open one.
        if mood.wait_for(|mood| *mood != Mood::Stalled).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
