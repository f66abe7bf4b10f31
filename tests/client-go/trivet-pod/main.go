// Trivet-pod is what the tests' pods run: numbered lines for `kubectl logs`, an echo on a port for
// `kubectl port-forward`, streams of bytes in both directions over HTTP for an apiserver's `pods/proxy`, and
// `trivet-pod cat` for `kubectl exec`.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	port := flag.Int("port", 8080, "where to echo")
	streamsPort := flag.Int("streams-port", 8081, "where to serve streams of bytes")
	pause := flag.Duration("pause", 100*time.Millisecond, "from one line to the next")
	flag.Parse()
	var err error
	if flag.Arg(0) == "cat" {
		_, err = io.Copy(os.Stdout, os.Stdin)
	} else {
		err = serve(*port, *streamsPort, *pause)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "trivet-pod:", err)
		os.Exit(1)
	}
}

func serve(port, streamsPort int, pause time.Duration) error {
	// As process 1 nothing ends us that we do not ask for.
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	go accept(listener)
	streamsListener, err := net.Listen("tcp", fmt.Sprintf(":%d", streamsPort))
	if err != nil {
		return err
	}
	go http.Serve(streamsListener, streams())
	clock := time.NewTicker(pause)
	defer clock.Stop()
	for number := 0; ; number++ {
		if _, err := fmt.Printf("%063d\n", number); err != nil {
			return err
		}
		select {
		case <-ended.Done():
			return listener.Close()
		case <-clock.C:
		}
	}
}

func accept(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			_, _ = io.Copy(connection, connection)
		}()
	}
}
