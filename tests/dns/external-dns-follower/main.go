// External-dns-follower is external-dns with a provider that keeps its records in memory: the real source of DNSEndpoints, which
// also notes the generation that it has observed, and the real plan, with the policy sync.
//
// It synchronises as external-dns does with --events --min-event-sync-interval, and prints one JSON object a line: all records
// of the zone whenever they have changed, and every error.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	log "github.com/sirupsen/logrus"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/external-dns/endpoint"
	"sigs.k8s.io/external-dns/plan"
	"sigs.k8s.io/external-dns/provider/inmemory"
	"sigs.k8s.io/external-dns/source"
)

// The records that external-dns manages by default, of those that a DNSEndpoint of Trivet has.
var managed = []string{endpoint.RecordTypeA, endpoint.RecordTypeAAAA}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "the kubeconfig `file`")
	namespace := flag.String("namespace", "", "the namespace of the DNSEndpoints; empty: all")
	zone := flag.String("zone", "", "the DNS zone")
	interval := flag.Duration("interval", time.Minute, "how often records are synchronised anyway")
	afterEvents := flag.Duration("min-event-sync-interval", 5*time.Second, "the shortest time between two synchronisations after events")
	flag.Parse()
	log.SetOutput(os.Stderr)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		// Whoever started this program holds its standard input.
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := follow(ctx, *kubeconfig, *namespace, *zone, *interval, *afterEvents); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func follow(ctx context.Context, kubeconfig, namespace, zone string, interval, afterEvents time.Duration) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	crds, err := source.NewCRDSource(ctx, config, &source.Config{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("watch DNSEndpoints: %w", err)
	}
	changed := make(chan struct{}, 1)
	crds.AddEventHandler(ctx, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	records := inmemory.NewInMemoryProvider(inmemory.InMemoryInitZones([]string{zone}))
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last string
	for {
		began := time.Now()
		now, err := synchronise(ctx, crds, records)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			write(map[string]any{"error": err.Error()})
		case now != last:
			write(map[string]any{"records": json.RawMessage(now)})
			last = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			continue
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(began.Add(afterEvents))):
		}
	}
}

// record is one record of the zone.
type record struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	TTL     int64    `json:"ttl"`
	Targets []string `json:"targets"`
}

// synchronise makes the zone what the DNSEndpoints say, and returns its records as JSON.
func synchronise(ctx context.Context, crds source.Source, records *inmemory.InMemoryProvider) (string, error) {
	desired, err := crds.Endpoints(ctx)
	if err != nil {
		return "", fmt.Errorf("read the DNSEndpoints: %w", err)
	}
	current, err := records.Records(ctx)
	if err != nil {
		return "", fmt.Errorf("read the records: %w", err)
	}
	desired, err = records.AdjustEndpoints(desired)
	if err != nil {
		return "", fmt.Errorf("adjust the endpoints: %w", err)
	}
	sync := plan.Plan{
		Policies:       []plan.Policy{&plan.SyncPolicy{}},
		Current:        current,
		Desired:        desired,
		ManagedRecords: managed,
	}
	if changes := sync.Calculate().Changes; changes.HasChanges() {
		if err := records.ApplyChanges(ctx, changes); err != nil {
			return "", fmt.Errorf("write the records: %w", err)
		}
	}
	current, err = records.Records(ctx)
	if err != nil {
		return "", fmt.Errorf("read the records: %w", err)
	}
	return list(current)
}

func list(endpoints []*endpoint.Endpoint) (string, error) {
	found := make([]record, 0, len(endpoints))
	for _, one := range endpoints {
		targets := slices.Sorted(slices.Values(one.Targets))
		found = append(found, record{one.DNSName, one.RecordType, int64(one.RecordTTL), targets})
	}
	slices.SortFunc(found, func(a, b record) int {
		return strings.Compare(a.Name+" "+a.Type, b.Name+" "+b.Type)
	})
	text, err := json.Marshal(found)
	return string(text), err
}

func write(line map[string]any) {
	text, err := json.Marshal(line)
	if err == nil {
		fmt.Println(string(text))
	}
}
