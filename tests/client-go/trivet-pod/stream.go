package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

const (
	// Bytes of a block: its number, and the pattern of the stream's seed.
	blockSize = 4096

	// How many of them are written at once: more than one frame of whatever carries them.
	blocksAtOnce = 16
)

// blocks are a stream of bytes without an end that a reader can check: tests/support/flows/blocks.rs has the same.
type blocks struct {
	block [blockSize]byte
}

// newBlocks makes the stream of a seed. The pattern is SplitMix64's.
func newBlocks(seed uint64) *blocks {
	var b blocks
	for at := 0; at < blockSize; at += 8 {
		seed += 0x9e3779b97f4a7c15
		word := seed
		word = (word ^ word>>30) * 0xbf58476d1ce4e5b9
		word = (word ^ word>>27) * 0x94d049bb133111eb
		binary.BigEndian.PutUint64(b.block[at:], word^word>>31)
	}
	return &b
}

// numbered returns one block. The next call changes it.
func (b *blocks) numbered(number uint64) []byte {
	binary.BigEndian.PutUint64(b.block[:], number)
	return b.block[:]
}

// compare reads to the end, and fails at the first byte that is not the stream's. It returns how many were.
func (b *blocks) compare(in io.Reader) (uint64, error) {
	found := make([]byte, blocksAtOnce*blockSize)
	var offset uint64
	for {
		count, err := in.Read(found)
		for rest := found[:count]; len(rest) > 0; {
			wanted := b.numbered(offset / blockSize)[offset%blockSize:]
			length := min(len(rest), len(wanted))
			if !bytes.Equal(rest[:length], wanted[:length]) {
				return offset, fmt.Errorf("a wrong byte in the %d from byte %d on", length, offset)
			}
			offset += uint64(length)
			rest = rest[length:]
		}
		if errors.Is(err, io.EOF) {
			return offset, nil
		}
		if err != nil {
			return offset, err
		}
	}
}

// streams serves /source, which never ends, and /sink, which answers with the number of bytes that came. A seed is the
// last part of the path.
func streams() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /source/{seed}", seeded(source))
	mux.HandleFunc("POST /sink/{seed}", seeded(sink))
	return mux
}

func seeded(serve func(http.ResponseWriter, *http.Request, *blocks)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		seed, err := strconv.ParseUint(r.PathValue("seed"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		serve(w, r, newBlocks(seed))
	}
}

func source(w http.ResponseWriter, _ *http.Request, blocks *blocks) {
	w.Header().Set("Content-Type", "application/octet-stream")
	many := make([]byte, 0, blocksAtOnce*blockSize)
	for number := uint64(0); ; {
		many = many[:0]
		for range blocksAtOnce {
			many = append(many, blocks.numbered(number)...)
			number++
		}
		if _, err := w.Write(many); err != nil {
			return
		}
	}
}

func sink(w http.ResponseWriter, r *http.Request, blocks *blocks) {
	count, err := blocks.compare(r.Body)
	if err != nil {
		http.Error(w, fmt.Sprintf("after %d bytes: %v", count, err), http.StatusUnprocessableEntity)
		return
	}
	fmt.Fprint(w, count)
}
