// Go-loadbalancer is siderolabs/go-loadbalancer with the settings of KubePrism, the balancer that Talos runs on every
// node: `go-loadbalancer LISTEN UPSTREAM`.
//
// Talos (https://github.com/siderolabs/talos, at ad8823176e75) starts it in kubeprism.go below
// internal/app/machined/pkg/controllers/k8s, and names the numbers in pkg/machinery/constants/constants.go.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/siderolabs/go-loadbalancer/controlplane"
	"github.com/siderolabs/go-loadbalancer/upstream"
	"go.uber.org/zap"
)

// The module that is measured.
const module = "github.com/siderolabs/go-loadbalancer"

// The constants KubePrism* of Talos; it too leaves all else at the library's defaults.
const (
	dialTimeout         = 15 * time.Second
	keepAlivePeriod     = 30 * time.Second
	tcpUserTimeout      = 30 * time.Second
	healthCheckInterval = 20 * time.Second // by connecting only
	healthCheckTimeout  = 15 * time.Second
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "go-loadbalancer:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 1 && arguments[0] == "--version":
		return sayVersion()
	case len(arguments) == 2:
		return balance(arguments[0], arguments[1])
	default:
		return fmt.Errorf("it takes an address to listen on and one of an upstream: got %d arguments", len(arguments))
	}
}

func balance(listen, member string) error {
	// A node's proxy has one CPU's worth of work, as its peers here. Talos allows the whole of machined, which KubePrism
	// is a part of, four.
	runtime.GOMAXPROCS(1)
	host, portText, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return err
	}
	logger, err := zap.NewProduction(zap.IncreaseLevel(zap.ErrorLevel)) // as quiet as KubePrism
	if err != nil {
		return err
	}
	balancer, err := controlplane.NewLoadBalancer(host, port, logger,
		controlplane.WithDialTimeout(dialTimeout),
		controlplane.WithKeepAlivePeriod(keepAlivePeriod),
		controlplane.WithTCPUserTimeout(tcpUserTimeout),
		controlplane.WithHealthCheckOptions(
			upstream.WithHealthcheckInterval(healthCheckInterval),
			upstream.WithHealthcheckTimeout(healthCheckTimeout),
		),
	)
	if err != nil {
		return err
	}
	upstreams := make(chan []string)
	if err := balancer.Start(upstreams); err != nil {
		return err
	}
	upstreams <- []string{member}
	select {} // until a signal ends it
}

func sayVersion() error {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return fmt.Errorf("built without module information")
	}
	for _, dependency := range build.Deps {
		if dependency.Path == module {
			fmt.Println(module, dependency.Version, build.GoVersion)
			return nil
		}
	}
	return fmt.Errorf("built without %s", module)
}
