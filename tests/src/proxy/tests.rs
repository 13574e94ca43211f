//! Each fault, as a client meets it.

use super::*;

/// A server that answers every line with `yes`.
async fn upstream() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut line = [0; 64];
                while stream.read(&mut line).await.is_ok_and(|length| length > 0) {
                    if stream.write_all(b"yes, and this is more than twenty bytes").await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(port)
}

/// What a client reads that asks once.
async fn ask(proxy: &Proxy) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await?;
    stream.write_all(b"well?").await?;
    let mut answer = vec![0; 64];
    let read = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut answer)).await;
    answer.truncate(read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??);
    Ok(answer)
}

#[tokio::test]
async fn each_fault_happens_as_often_as_ordered() -> Result<()> {
    let proxy = Proxy::start(upstream().await?).await?;
    assert_eq!(ask(&proxy).await?.len(), 39);
    for moment in [Moment::Connect, Moment::Request, Moment::Answer] {
        proxy.order(moment.clone(), Act::Reset, 1);
        assert_eq!(ask(&proxy).await.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset), "{moment:?}");
        proxy.order(moment, Act::Silence, 1);
        assert_eq!(ask(&proxy).await.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    }
    proxy.order(Moment::Request, Act::Close, 1);
    assert_eq!(ask(&proxy).await?, b"");
    proxy.order(Moment::AmidAnswer, Act::Close, 1);
    assert_eq!(ask(&proxy).await?.len(), 20);
    proxy.order(Moment::Answer, Act::Trickle, 1);
    assert_eq!(ask(&proxy).await?.len(), 1);
    assert_eq!(ask(&proxy).await?.len(), 39);
    assert_eq!((proxy.injected(), proxy.connections()), (9, 11));
    Ok(())
}

#[tokio::test]
async fn nobody_connects_to_a_deaf_port() -> Result<()> {
    let deaf = Deaf::start().await?;
    let connecting = TcpStream::connect(("127.0.0.1", deaf.port()));
    assert!(tokio::time::timeout(Duration::from_millis(1500), connecting).await.is_err());
    Ok(())
}
