package main

import (
	"net"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// connect returns a client with a connection of its own: client-go shares one among clients of equal configuration,
// and a dialer is never equal to another.
func connect(config *rest.Config, timeout time.Duration) (*kubernetes.Clientset, error) {
	own := rest.CopyConfig(config)
	// The values that client-go's own dialer has.
	own.Dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	own.Timeout = timeout
	own.UserAgent = "trivet-client"
	return kubernetes.NewForConfig(own)
}
