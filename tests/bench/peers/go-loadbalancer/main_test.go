package main

import (
	"io"
	"net"
	"testing"
	"time"
)

func TestAByteGetsThroughBothWays(t *testing.T) {
	member, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	go echo(member)

	listen := freeAddress(t)
	failed := make(chan error, 1)
	go func() { failed <- balance(listen, member.Addr().String()) }()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := throughAndBack(listen)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		select {
		case err := <-failed:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond): // it is not listening yet, or has no upstream yet
		}
	}
}

func TestOtherArgumentsAreRefused(t *testing.T) {
	for _, arguments := range [][]string{nil, {"127.0.0.1:1"}, {"127.0.0.1", "127.0.0.1:2"}, {"a", "b", "c"}} {
		if run(arguments) == nil {
			t.Errorf("%q was not refused", arguments)
		}
	}
}

func echo(member net.Listener) {
	for {
		connection, err := member.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			io.Copy(connection, connection)
		}()
	}
}

func freeAddress(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func throughAndBack(address string) error {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := connection.Write([]byte{'x'}); err != nil {
		return err
	}
	_, err = io.ReadFull(connection, make([]byte, 1))
	return err
}
