package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

const (
	configMap   = "trivet-client"
	sequenceKey = "sequence"
	writtenKey  = "written"

	// What kubelet gives the renewal of its Lease.
	requestTimeout = 10 * time.Second
	// After a failed request; as short as a client that cares would wait.
	retryAfter = 100 * time.Millisecond
)

// write gives the ConfigMap one sequence number after the other until ctx ends. A number that fails is tried again:
// the next one is not written before it.
func write(ctx context.Context, config *rest.Config, namespace string, rate float64, report *report) error {
	client, err := connect(config, requestTimeout)
	if err != nil {
		return err
	}
	maps := client.CoreV1().ConfigMaps(namespace)
	current, err := begin(ctx, maps)
	if err != nil {
		return fmt.Errorf("failed to make ConfigMap %s: %w", configMap, err)
	}
	clock := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer clock.Stop()
	report.began(time.Now())
	for sequence := 1; ; sequence++ {
		select {
		case <-ctx.Done():
			return nil
		case <-clock.C:
		}
		for try := 1; ; try++ {
			if try == 2 {
				report.retried()
			}
			// Not ctx: a write that is under way is finished, so that we know whether it counts.
			written, err := update(context.Background(), maps, current, sequence)
			if err == nil {
				current = written
				report.wrote(sequence, time.Now())
				break
			}
			report.failed("writer", "update", err)
			if ctx.Err() != nil {
				return nil
			}
			time.Sleep(retryAfter)
		}
	}
}

func begin(ctx context.Context, maps corev1client.ConfigMapInterface) (*corev1.ConfigMap, error) {
	fresh := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: configMap}}
	made, err := maps.Create(ctx, fresh, metav1.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return maps.Get(ctx, configMap, metav1.GetOptions{})
	}
	return made, err
}

// update writes a sequence number once. A request of before may have been obeyed though its answer was lost: then
// the number is there already.
func update(
	ctx context.Context, maps corev1client.ConfigMapInterface, current *corev1.ConfigMap, sequence int,
) (*corev1.ConfigMap, error) {
	for {
		next := current.DeepCopy()
		next.Data = map[string]string{
			sequenceKey: strconv.Itoa(sequence),
			writtenKey:  time.Now().Format(time.RFC3339Nano),
		}
		written, err := maps.Update(ctx, next, metav1.UpdateOptions{})
		if !errors.IsConflict(err) {
			return written, err
		}
		found, err := maps.Get(ctx, configMap, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if found.Data[sequenceKey] == strconv.Itoa(sequence) {
			return found, nil
		}
		current = found
	}
}
