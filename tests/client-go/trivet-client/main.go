// Trivet-client is a real client of a cluster: informers that watch the ConfigMaps of a namespace, and a writer that
// keeps updating one of them.
//
// It prints one JSON object a line: every event as it is seen, every request that fails, and at the end (SIGTERM,
// --duration, or the end of its standard input) a summary of what was written and what each informer made of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Informers get this long to see what was written last.
const lastEvents = 5 * time.Second

type options struct {
	kubeconfig    string
	server        string
	tlsServerName string
	namespace     string
	informers     int
	rate          float64
	duration      time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "the kubeconfig `file`")
	flag.StringVar(&o.server, "server", "", "the apiserver's `URL`, if not the kubeconfig's")
	flag.StringVar(&o.tlsServerName, "tls-server-name", "", "the `name` in the apiserver's certificate")
	flag.StringVar(&o.namespace, "namespace", "default", "the `namespace` to write to and to watch")
	flag.IntVar(&o.informers, "informers", 6, "how many informers, each with a connection of its own")
	flag.Float64Var(&o.rate, "rate", 10, "writes a second")
	flag.DurationVar(&o.duration, "duration", 0, "how long; 0 is until told to end")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "trivet-client:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	config, err := o.config()
	if err != nil {
		return err
	}
	if o.rate <= 0 || o.informers < 1 {
		return fmt.Errorf("--rate and --informers must be positive: they are %v and %d", o.rate, o.informers)
	}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go endWithInput(stop)
	if o.duration > 0 {
		ended, stop = context.WithTimeout(ended, o.duration)
		defer stop()
	}

	report := newReport(os.Stdout, o.informers)
	// They outlive the writer: its last words are to be seen too.
	watching, stopWatching := context.WithCancel(context.Background())
	var informers sync.WaitGroup
	for index := range o.informers {
		informer, err := newInformer(config, o.namespace, index, report)
		if err != nil {
			stopWatching()
			return err
		}
		informers.Go(func() { informer.RunWithContext(watching) })
	}
	err = write(ended, config, o.namespace, o.rate, report)
	report.awaitLast(lastEvents)
	stopWatching()
	informers.Wait()
	return errorsOf(err, report.summarize())
}

// config never is used by two clients at once: client-go gives equal ones the same connection.
func (o options) config() (*rest.Config, error) {
	rules := clientcmd.ClientConfigLoadingRules{ExplicitPath: o.kubeconfig}
	cluster := clientcmdapi.Cluster{Server: o.server, TLSServerName: o.tlsServerName}
	overrides := clientcmd.ConfigOverrides{ClusterInfo: cluster}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&rules, &overrides).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("failed to use %s: %w", o.kubeconfig, err)
	}
	return config, nil
}

// endWithInput lets whoever started us end us by closing a pipe, also by dying.
func endWithInput(stop func()) {
	if info, err := os.Stdin.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	stop()
}

func errorsOf(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
