//go:build !unix

package study

import "time"

// The system does not tell.
func cpuTime() time.Duration { return 0 }
func peakRSS() uint64        { return 0 }
