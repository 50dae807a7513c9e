package queue

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"
)

// splitListen reads host:port; port 0 takes a free one.
func splitListen(listen string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, err
	}
	if port, err = strconv.Atoi(text); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q is no port", text)
	}
	if port == 0 {
		port = -1 // as NATS calls a free one
	}
	return host, port, nil
}

// natsLog hands on what the NATS server says about trouble.
type natsLog struct{ log *slog.Logger }

func (l natsLog) Noticef(format string, v ...any) {
	l.log.Debug("queue", "nats", fmt.Sprintf(format, v...))
}
func (l natsLog) Warnf(format string, v ...any) {
	l.log.Warn("queue", "nats", fmt.Sprintf(format, v...))
}
func (l natsLog) Errorf(format string, v ...any) {
	l.log.Error("queue", "nats", fmt.Sprintf(format, v...))
}
func (l natsLog) Fatalf(format string, v ...any) {
	l.log.Error("queue", "nats", fmt.Sprintf(format, v...))
}
func (natsLog) Debugf(string, ...any) {}
func (natsLog) Tracef(string, ...any) {}
