//! Users of the broker under test: by the handle of the embedded one, by the management API of RabbitMQ.

use embedded_broker::{Permissions, TopicPermission, User};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::test_broker::TestBroker;

pub const PASSWORD: &str = "Pa55word-of-a-test";

impl TestBroker {
    /// Adds a user with three patterns; returns its URL.
    pub async fn user(&self, name: &str, configure: &str, write: &str, read: &str) -> String {
        let permissions = permissions(configure, write, read);
        match self.users() {
            Some(users) => users.put(User { name: name.to_owned(), tags: vec![], permissions }, PASSWORD).await.unwrap(),
            None => {
                management("PUT", &format!("users/{name}"), &format!(r#"{{"password":"{PASSWORD}","tags":""}}"#)).await;
                self.permit(name, permissions).await;
            }
        }
        self.url_of(name, PASSWORD)
    }

    /// Changes what a user may do.
    pub async fn permit(&self, name: &str, permissions: Permissions) {
        if let Some(users) = self.users() {
            return users.permit(name, permissions).await.unwrap();
        }
        let text = |text: &str| text.replace('\\', r"\\");
        let Permissions { configure, write, read, topics } = permissions;
        let body = format!(r#"{{"configure":"{}","write":"{}","read":"{}"}}"#, text(&configure), text(&write), text(&read));
        management("PUT", &format!("permissions/%2F/{name}"), &body).await;
        for TopicPermission { exchange, write, read } in topics {
            let body = format!(r#"{{"exchange":"{exchange}","write":"{}","read":"{}"}}"#, text(&write), text(&read));
            management("PUT", &format!("topic-permissions/%2F/{name}"), &body).await;
        }
    }

    pub async fn remove_user(&self, name: &str) {
        match self.users() {
            Some(users) => users.remove(name).await.unwrap(),
            None => management("DELETE", &format!("users/{name}"), "").await,
        }
    }

    pub fn url_of(&self, name: &str, password: &str) -> String {
        self.url.replacen("guest:guest", &format!("{name}:{password}"), 1)
    }
}

pub fn permissions(configure: &str, write: &str, read: &str) -> Permissions {
    Permissions { configure: configure.into(), write: write.into(), read: read.into(), topics: vec![] }
}

/// Sends a request to RabbitMQ's management API.
async fn management(method: &str, path: &str, body: &str) {
    let url = std::env::var("PIECEWORK_TEST_AMQP_ADMIN_URL").expect("cases about users need the management API beside the broker");
    let address = url.trim_start_matches("http://guest:guest@").trim_end_matches('/');
    let mut socket = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} /api/{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
}
