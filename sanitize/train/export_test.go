package train

import "errors"

// OnDevice has a trainer on the CPU train as it does on other providers.
func OnDevice(t *Trainer) error {
	host := t.engine
	device, err := newDevice(t.c, t.o, t.run)
	if err != nil {
		return err
	}
	t.engine = device
	return errors.Join(device.now().take(host.now()), host.Close())
}

// Shrink has a trainer go on with smaller micro-batches.
func Shrink(t *Trainer, micro int) error { return t.shrink(micro) }
