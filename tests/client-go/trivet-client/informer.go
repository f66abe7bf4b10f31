package main

import (
	"context"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// In seconds: longer than any test, so that a watch that begins again is one that was cut. client-go asks for five to ten
// minutes.
const watchLasts = int64(3600)

// newInformer returns an informer of a namespace's ConfigMaps that tells the report of every event, list and watch.
func newInformer(
	config *rest.Config, namespace string, index int, report *report,
) (cache.SharedIndexInformer, error) {
	// No timeout of ours: a watch lasts.
	client, err := connect(config, 0)
	if err != nil {
		return nil, err
	}
	maps := client.CoreV1().ConfigMaps(namespace)
	informer := cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			report.listed(index)
			list, err := maps.List(ctx, options)
			report.failed(who(index), "list", err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			// A list by another way.
			if options.SendInitialEvents != nil && *options.SendInitialEvents {
				report.listed(index)
			}
			options.TimeoutSeconds = new(watchLasts)
			events, err := maps.Watch(ctx, options)
			report.watched(index, err)
			report.failed(who(index), "watch", err)
			return events, err
		},
	}, &corev1.ConfigMap{}, 0, cache.Indexers{})
	see := func(object any) {
		if sequence, written, ok := read(object); ok {
			report.seen(index, sequence, written, time.Now())
		}
	}
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(_, object any) { see(object) },
	})
	return informer, err
}

func who(index int) string {
	return "informer " + strconv.Itoa(index)
}

// read returns what the writer wrote. Other ConfigMaps of the namespace are not its.
func read(object any) (sequence int, written time.Time, ok bool) {
	found, ok := object.(*corev1.ConfigMap)
	if !ok || found.Name != configMap {
		return 0, time.Time{}, false
	}
	sequence, err := strconv.Atoi(found.Data[sequenceKey])
	if err != nil {
		return 0, time.Time{}, false
	}
	written, err = time.Parse(time.RFC3339Nano, found.Data[writtenKey])
	return sequence, written, err == nil
}
