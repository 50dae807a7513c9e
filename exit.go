package main

import (
	"context"
	"errors"

	"grindstone/sanitize"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// Exit codes of every command; the root command's help documents them, and the server reads them from its sanitizers.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitModel       = 3
	exitDataset     = 4
	exitRuntime     = 5
	exitAccuracy    = 6
	exitMemory      = 7
	exitInterrupted = 130
)

// exitCodes says which errors end a command with which code. The first line that matches counts.
var exitCodes = []struct {
	code   int
	errors []error
}{
	{exitInterrupted, []error{context.Canceled}},
	{exitUsage, []error{sanitize.ErrOptions, data.ErrOption, classifier.ErrFreeze, classifier.ErrSize}},
	{exitRuntime, []error{ort.ErrLibrary, ort.ErrVersion, ort.ErrProvider}},
	{exitMemory, []error{sanitize.ErrMemoryLimit, ort.ErrMemory}}, // before what the allocation was for
	{exitAccuracy, []error{sanitize.ErrAtChance, sanitize.ErrAccuracyFell}},
	{exitDataset, []error{
		sanitize.ErrClasses, sanitize.ErrTooFewHeldOut, data.ErrFormat, data.ErrCorrupt, data.ErrLimit, data.ErrClasses, data.ErrNoSplit,
	}},
	{exitModel, []error{
		onnx.ErrNotModel, onnx.ErrMalformed, onnx.ErrUnsupported, onnx.ErrLimit, onnx.ErrExternal, onnx.ErrMismatch, onnx.ErrOperatorSet,
		classifier.ErrInput, classifier.ErrOutput, classifier.ErrNoHead, classifier.ErrUnsupported, grad.ErrNoRule, ort.ErrModel,
	}},
}

// exitCode returns the code that a command ends with because of err.
func exitCode(err error) int {
	var e *exitError
	if errors.As(err, &e) {
		return e.code
	}
	for _, row := range exitCodes {
		for _, known := range row.errors {
			if errors.Is(err, known) {
				return row.code
			}
		}
	}
	var dataset *data.Error
	if errors.As(err, &dataset) { // a file that cannot be opened
		return exitDataset
	}
	return exitFailure
}

// exitError ends a command with a code of its own. A nil err means that everything was said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }
