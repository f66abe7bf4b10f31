package main

import (
	"bytes"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// first returns some bytes of the stream of seed 7.
func first(count int) []byte {
	blocks := newBlocks(7)
	var stream []byte
	for number := uint64(0); len(stream) < count; number++ {
		stream = append(stream, blocks.numbered(number)...)
	}
	return stream[:count]
}

func TestAStreamIsTheOneThatTheRustSideKnows(t *testing.T) {
	second := newBlocks(7).numbered(1)
	if got := hex.EncodeToString(second[:16]); got != "0000000000000001044c3cd7f43c661c" {
		t.Errorf("block 1 begins with %s", got)
	}
}

func TestALostARepeatedAndAnAlteredByteFail(t *testing.T) {
	whole := first(3 * blockSize)
	altered := bytes.Clone(whole)
	altered[blockSize+99] ^= 1
	for name, wrong := range map[string][]byte{
		"lost byte":      append(bytes.Clone(whole[:5000]), whole[5001:]...),
		"repeated byte":  append(bytes.Clone(whole[:5001]), whole[5000:]...),
		"lost block":     append(bytes.Clone(whole[:blockSize]), whole[2*blockSize:]...),
		"repeated block": append(bytes.Clone(whole[:blockSize]), whole...),
		"altered byte":   altered,
	} {
		if count, err := newBlocks(7).compare(bytes.NewReader(wrong)); err == nil {
			t.Errorf("%s: %d bytes passed", name, count)
		}
	}
	if count, err := newBlocks(7).compare(bytes.NewReader(whole)); err != nil || count != 3*blockSize {
		t.Errorf("%d bytes passed: %v", count, err)
	}
}

func TestASinkAnswersWithTheNumberOfBytes(t *testing.T) {
	for body, status := range map[string]int{
		string(first(5000)):          http.StatusOK,
		string(first(5000)) + "\x00": http.StatusUnprocessableEntity,
	} {
		answer := httptest.NewRecorder()
		streams().ServeHTTP(answer, httptest.NewRequest("POST", "/sink/7", strings.NewReader(body)))
		if answer.Code != status || status == http.StatusOK && answer.Body.String() != "5000" {
			t.Errorf("%d %s", answer.Code, answer.Body)
		}
	}
}
