package main

import (
	"testing"

	"sigs.k8s.io/external-dns/endpoint"
)

func TestRecordsAndTheirTargetsAreInOneOrder(t *testing.T) {
	records := []*endpoint.Endpoint{
		endpoint.NewEndpointWithTTL("api.example.com", endpoint.RecordTypeAAAA, 30, "fd00::2", "fd00::1"),
		endpoint.NewEndpointWithTTL("api.example.com", endpoint.RecordTypeA, 30, "10.0.0.1"),
	}
	got, err := list(records)
	want := `[{"name":"api.example.com","type":"A","ttl":30,"targets":["10.0.0.1"]},` +
		`{"name":"api.example.com","type":"AAAA","ttl":30,"targets":["fd00::1","fd00::2"]}]`
	if err != nil || got != want {
		t.Fatalf("%s, %v; want %s", got, err, want)
	}
}
